"""What mteb is told about a model, and what a model is asked about itself."""

from __future__ import annotations

from typing import Any, Literal

from mteb.models import ModelMeta
from mteb.models.model_meta import ScoringFunction

from umr.errors import RecipeError
from umr.evaluation.mteb.instructions import Instructions
from umr.models.cross_encoder import CrossEncoderEngine
from umr.models.embedder import RenderedEngine
from umr.models.reranker import RerankEngine
from umr.models.sentence_transformer import SentenceTransformerEngine

_KINDS = ("text", "image", "video")


def model_card(
    name: str, kind: Literal["dense", "cross-encoder"], model: Any, instructions: Instructions, dimension: int | None = None
) -> ModelMeta:
    """The metadata that mteb has of models. Its revision is our fingerprint, so results of other weights, templates or budgets never meet.

    Args:
        name: `"<organization>/<model>"`.
        kind: of model.
        model: an encoder or reranker with a `fingerprint`.
        instructions: those given are part of the metadata, and of the place that mteb keeps results in.
        dimension: of its vectors.

    Raises:
        RecipeError: a name without a slash.
    """
    if "/" not in name:
        raise RecipeError(f"mteb wants names like 'organization/model', not {name!r}")
    return ModelMeta.create_empty(
        {
            "name": name,
            "revision": model.fingerprint,
            "modalities": modalities_of(model),
            "model_type": [kind],
            "embed_dim": dimension,
            "framework": ["PyTorch"],
            "similarity_fn_name": ScoringFunction.COSINE if kind == "dense" else None,
            "use_instructions": True,
            "experiment_kwargs": {"instructions": dict(instructions.given)} if instructions.given else None,
        }
    )


def modalities_of(model: Any) -> list[str]:
    """What a model takes. An encoder that is none of our classes is believed to take everything."""
    engine = getattr(model, "engine", None)
    if isinstance(engine, SentenceTransformerEngine | CrossEncoderEngine):
        return [kind for kind in _KINDS if kind in engine.modalities]
    if isinstance(engine, RenderedEngine | RerankEngine):
        reader = engine.renderer.vision
        if reader is None:
            return ["text"]
        return [kind for kind in _KINDS if kind != "video" or reader.video_id >= 0]
    return list(_KINDS)


def has_own_prompts(model: Any) -> bool:
    """Whether it is a model of sentence-transformers, which has its own prompt for queries without an instruction."""
    return isinstance(getattr(model, "engine", None), SentenceTransformerEngine | CrossEncoderEngine)


def check_precision(options: dict[str, Any]) -> None:
    """Raise `RecipeError` for mteb's option `precision`; its others say how it shows progress and loads."""
    if options.get("precision") not in (None, "float32"):
        raise RecipeError(f"precision={options['precision']!r} has no effect on this model, which gives float32; leave it out")
