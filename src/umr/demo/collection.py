"""Some of the benchmark's pictures, texts and clips as a collection: indexed and searched as anybody's files are, for the page to show."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.errors import StoreError
from umr.files import write_text
from umr.items import Item, Text
from umr.search.collection import Collection
from umr.search.indexing import Indexing
from umr.search.settings import CollectionSettings

if TYPE_CHECKING:
    from rich.table import Table

    from umr.data.mbeir import MBeir
    from umr.models.embedder import Embedder

FOLDER, MANIFEST = "collection.umr", "things.jsonl"
PER_SETTING, ANSWERED = 30, 3
"""Candidates of each setting's pool that are indexed, besides the right answers of its first queries."""
ASKED = (("a text", "scenes_task0"), ("an image with a change", "edits_task7"))
"""Kind of query, and the setting whose first query it is."""
SHOWN = 3


def index(tree: MBeir, split: str, embedder: Embedder, model: Path, out: Path) -> Collection:
    """Index things of a benchmark, or what has changed of them since an earlier run; what is there of another model is replaced.

    Args:
        tree: the benchmark, below `out`.
        split: whose pools.
        embedder: the model.
        model: its folder, which `umr serve` will load it from.
        out: folder for the collection and its manifest.
    """
    write_text(out / MANIFEST, "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in _records(tree, split, out)))
    folder = out / FOLDER
    if folder.exists() and not _goes_on(folder, embedder.fingerprint, out):
        shutil.rmtree(folder)
    Indexing.begin(out / MANIFEST, folder, model, texts="mbeir").run()
    return Collection.open(folder, embedder)


def searches(collection: Collection, tree: MBeir, split: str) -> Iterator[str | Table]:
    """Two searches in the collection, for a terminal: what is asked, then a table of what is found."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    for kind, setting in ASKED:
        query = tree.queries(setting, split)[0]
        found = collection.search(query.item, instruction=query.instructions[0], k=SHOWN)
        yield f"among {len(collection):,} things, {kind}: {query.item.text}"
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("", "found", "kind", "cosine", "text", ""):
            table.add_column(name)
        for hit in found:
            right = "right" if hit.id in query.positives else ""
            table.add_row(str(hit.rank), hit.id, hit.modality, f"{hit.scores['cosine']:.2f}", escape(hit.text), right)
        yield table


def _records(tree: MBeir, split: str, out: Path) -> Iterator[dict[str, Any]]:
    """Rows of the manifest; its paths are relative to `out`."""
    seen: set[str] = set()
    for setting in tree.settings(split):
        pool = tree.pool(setting, split)
        answers = (did for query in islice(tree.queries(setting, split), ANSWERED) for did in query.positives)
        for did in (*answers, *islice(pool.ids, PER_SETTING)):
            if did in pool and did not in seen:
                seen.add(did)
                yield {"id": did, **_fields(pool.item(did), out), "metadata": {"dataset": setting.dataset}}


def _fields(item: Item, out: Path) -> dict[str, str]:
    fields = {}
    for part in item.parts:
        if isinstance(part, Text):
            fields["text"] = part.text
        elif isinstance(part.source, Path):
            fields[part.modality] = os.path.relpath(part.source.resolve(), out.resolve())
    return fields


def _goes_on(folder: Path, fingerprint: str, out: Path) -> bool:
    """Whether a collection of an earlier run is of this model and place."""
    try:
        settings = CollectionSettings.read(folder)
    except StoreError:
        return False
    return (settings.fingerprint, settings.root, settings.texts) == (fingerprint, str(out.resolve()), "mbeir")
