"""`embed`: a corpus becomes a vector store, piece by piece, by one worker or many, however often it is interrupted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umr import files
from umr.bulk.corpus import Corpus, open_corpus
from umr.bulk.crew import Crew
from umr.bulk.work import Load, ModelFolder, OnError, Work
from umr.errors import RecipeError, StoreError
from umr.items import Side
from umr.progress import progress
from umr.store.embedding import SHARD_SIZE
from umr.store.manifest import AGAIN
from umr.store.vectors import VectorStore

ABOUT = "embedding.json"


@dataclass(frozen=True)
class Counts:
    """Items of the corpus, and what became of them: `items == embedded + rejected`."""

    items: int
    embedded: int
    rejected: int


def embed(
    corpus: Path | Corpus,
    model: str | Path | Load,
    out: Path,
    *,
    pool: str | None = None,
    split: str | None = None,
    side: Side = "candidate",
    instruction: str | None = None,
    rows: int = SHARD_SIZE,
    on_error: OnError = "fail",
    crew: Crew | None = None,
    dtype: str = "float32",
    batch_tokens: int | None = None,
    revision: str | None = None,
) -> Counts:
    """Embed a corpus into the store in `out`, or go on with it.

    The store ends with the same bytes whoever does the work and however often it is interrupted or its workers are killed.

    Args:
        corpus: what to embed: a manifest, the folder of a benchmark, or one that is open.
        model: folder or hub id of an embedder, or what loads one.
        out: folder of the vector store.
        pool: see `open_corpus`.
        split: likewise.
        side: which side the items are embedded as.
        instruction: for queries, one for all.
        rows: items a piece, which is what a killed worker loses and what workers share the work by.
        on_error: what is done about items that cannot be opened or rendered: fail, or leave them out, each with its reason in a file
            `NNNNN.rejected.jsonl` of its shard.
        crew: who works. Default: this process.
        dtype: of the model, like `batch_tokens` and `revision` for `Embedder.load`.
        batch_tokens: token budget of a batch.
        revision: of a hub id.

    Raises:
        DataError: unusable data.
        RecipeError: settings that contradict each other, or those of the store.
        ModelError: a model that cannot be loaded, or workers that keep dying.
        StoreError: `out` holds other vectors, is damaged, or cannot be written.
        MediaError, RenderError: an item cannot be embedded, with `on_error="fail"`.
    """
    if rows < 1:
        raise RecipeError(f"rows must be at least 1, not {rows}")
    if instruction is not None and side == "candidate":
        raise RecipeError("an instruction belongs to queries; give --side query, or leave it out")
    crew = crew or Crew()
    opened = corpus if isinstance(corpus, Corpus) else open_corpus(Path(corpus), pool, split)
    load: Load = ModelFolder(str(model), dtype, batch_tokens, revision) if isinstance(model, str | Path) else model
    encoder = crew.load(load)
    about = {"items": len(opened.ids), "rows": rows, "instruction": instruction, "on_error": on_error}
    out = Path(out).absolute()  # workers may have another working directory
    store = VectorStore.create_or_resume(out, fingerprint=encoder.fingerprint, dimension=encoder.dimension, side=side, source=opened.source)
    _claim(out, about, store.shards)
    work = Work(out, encoder.fingerprint, encoder.dimension, load, opened, side, instruction, rows, on_error)
    with progress("embedding", len(opened.ids)) as bar:
        crew.fill(store, work, encoder, bar)
    return Counts(len(opened.ids), len(store), len(opened.ids) - len(store))


def _claim(folder: Path, about: dict[str, Any], shards: int) -> None:
    """Write down how a store is filled, or check that it is as it was."""
    path = folder / ABOUT
    try:
        here = json.loads(path.read_text("utf-8"))
        others = [name for name in about if here[name] != about[name]]
    except FileNotFoundError:
        if shards:
            raise StoreError(f"{folder}: holds vectors that umr embed did not make; choose another folder") from None
        files.write_text(path, json.dumps({"format": 1, **about}, indent=1, sort_keys=True) + "\n")
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: damaged ({error}); {AGAIN}") from error
    if others:
        name = others[0]
        raise RecipeError(f"{folder}: holds vectors made with {name} {here[name]!r}, not {about[name]!r}; choose another folder")
