"""Engines in this process: our own, and plain sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from umr.engines.answers import Answers
from umr.engines.golden import Golden
from umr.errors import ModelError
from umr.models import backbone
from umr.models.embedder import Embedder, RenderedEngine
from umr.models.sentence_transformer import SentenceTransformerEngine

OURS = "ours"
SENTENCE_TRANSFORMERS = "sentence-transformers"
_CARRIED = ("masked_pooling.py", "latent_pooling.py", "latent_attention.py")
"""Files beside the models' that a folder of ours may carry a copy of."""


class Ours:
    """`Embedder`, with its own packing of batches.

    Args:
        model: folder or hub id.
        dtype: as of `Embedder.load`.
    """

    name = OURS

    def __init__(self, model: str | Path, dtype: str) -> None:
        self.embedder = Embedder.load(model, dtype=dtype)
        self.about = {"fingerprint": self.embedder.fingerprint}

    def embed(self, rows: Sequence[Golden]) -> Answers:
        """Embed all rows that the model understands in one call."""
        kept, answers = _understood(rows, _modalities(self.embedder))
        for side in ("candidate", "query"):
            chosen = [row for row in kept if row.side == side]
            vectors_ND = self.embedder.encode([row.item for row in chosen], side, [row.instruction for row in chosen])
            answers.vectors |= {row.name: vector_D for row, vector_D in zip(chosen, vectors_ND, strict=True)}
        return answers


class PlainSentenceTransformer:
    """`SentenceTransformer(folder)` as anyone would use it, with its own batches and their padding.

    Args:
        model: folder or hub id.
        dtype: name of a number type, for the weights.
        trust_remote_code: run code that the folder carries. Copies of our own pooling modules are run without it.

    Raises:
        ModelError: it cannot be loaded, or carries code that nobody has agreed to run.
    """

    name = SENTENCE_TRANSFORMERS

    def __init__(self, model: str | Path, dtype: str, trust_remote_code: bool) -> None:
        import sentence_transformers

        folder = backbone.local_folder(model)
        self.about = {"version": sentence_transformers.__version__}
        trusted = _trusted(folder) if not trust_remote_code else True
        options = {"dtype": backbone.pick_dtype(dtype)}
        try:
            self.model: Any = sentence_transformers.SentenceTransformer(
                str(folder), device=backbone.pick_device(None), trust_remote_code=trusted, model_kwargs=options
            )
        except Exception as error:  # its loaders raise whatever the modules raise
            raise ModelError(f"{model}: sentence-transformers cannot load it ({str(error).splitlines()[0]})") from error

    def embed(self, rows: Sequence[Golden]) -> Answers:
        """Embed in calls of one side and instruction each, texts and media of all sizes together."""
        engine = SentenceTransformerEngine(self.model)  # only to put items into the form that sentence-transformers takes
        kept, answers = _understood(rows, engine.modalities)
        for side, instruction in dict.fromkeys((row.side, row.instruction) for row in kept):
            chosen = [row for row in kept if (row.side, row.instruction) == (side, instruction)]
            inputs = engine.prepare([row.item for row in chosen], side, [instruction] * len(chosen))
            encode = self.model.encode_query if side == "query" else self.model.encode_document
            vectors_ND = encode([one.value for one in inputs], prompt=instruction, normalize_embeddings=True, show_progress_bar=False)
            answers.vectors |= {row.name: np.asarray(vector_D) for row, vector_D in zip(chosen, vectors_ND, strict=True)}
        return answers


def _understood(rows: Sequence[Golden], modalities: set[str]) -> tuple[list[Golden], Answers]:
    missing = {row.name: sorted(set(row.item.modality.split(",")) - modalities) for row in rows}
    left_out = {name: f"the model does not take {', '.join(kinds)}" for name, kinds in missing.items() if kinds}
    return [row for row in rows if row.name not in left_out], Answers(left_out=left_out)


def _modalities(embedder: Embedder) -> set[str]:
    engine = embedder.engine
    if not isinstance(engine, RenderedEngine):
        return engine.modalities
    vision = engine.renderer.vision
    if vision is None:
        return {"text"}
    return {"text", "image"} if vision.video_id < 0 else {"text", "image", "video"}


def _trusted(folder: Path) -> bool:
    """Whether a folder carries code, all of it ours. Raises `ModelError` for code of others."""
    carried = sorted(folder.rglob("*.py"))
    ours = {Path(backbone.__file__).with_name(name).read_bytes() for name in _CARRIED}
    if foreign := [file.name for file in carried if file.read_bytes() not in ours]:
        raise ModelError(f"{folder}: carries code that is not this version's ({foreign[0]}); read it, then say --trust-remote-code")
    if carried and any(b'"auto_map"' in file.read_bytes() for file in folder.glob("*.json")):
        raise ModelError(f"{folder}: names code from elsewhere (auto_map); read it, then say --trust-remote-code")
    return bool(carried)
