"""A model as a folder for sentence-transformers, or a refusal in one line: never a folder that gives other vectors elsewhere."""

from __future__ import annotations

from pathlib import Path

from umr.errors import ModelError
from umr.models import backbone, exchange, settings
from umr.models.checkpoint_files import must_be_new, stored_dtype
from umr.models.embedder import Embedder, RenderedEngine


def export_sentence_transformers(model: str | Path, out: Path) -> None:
    """Write a folder that plain `SentenceTransformer(out)` loads, and that gives the same vectors there.

    Where the instruction is left out of the mean, and for latent attention, the folder carries its pooling as a module of its own and
    is loaded with `trust_remote_code=True`.

    Args:
        model: a model folder of ours, a plain Qwen-VL or LLaVA-NeXT checkpoint, or a hub id.
        out: folder to write, which must not exist. It appears whole or not at all.

    Raises:
        ModelError: sentence-transformers cannot compute what the model does, or something is at `out`.
    """
    must_be_new(out)
    engine = open_for_export(model)
    if reasons := exchange.why_not_exchangeable(engine):
        raise ModelError(f"{model}: plain sentence-transformers cannot give its vectors: {'; '.join(reasons)}")
    exchange.save(engine, out)


def open_for_export(model: str | Path) -> RenderedEngine:
    """Load a model in the number type that its weights are stored in. Raises `ModelError`, also for a foreign SentenceTransformer."""
    folder = backbone.local_folder(model)
    if (folder / "modules.json").is_file() and not (folder / settings.FILE_NAME).is_file():
        raise ModelError(f"{model}: a SentenceTransformer that others saved; give its folder to the other engine as it is")
    dtype = str(stored_dtype(backbone.load_config(folder))).removeprefix("torch.")
    engine = Embedder.load(folder, dtype=dtype, device="cpu").engine
    assert isinstance(engine, RenderedEngine)
    return engine
