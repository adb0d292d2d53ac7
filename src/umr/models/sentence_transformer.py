"""Any SentenceTransformer as an engine of `Embedder`: its own rendering and pooling, our packing and ordering."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from umr.errors import MediaError, ModelError, RenderError
from umr.items import Image, Item, Side, Text, Video
from umr.media import Frames
from umr.rendering.vision import frames_metadata

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True)
class Prepared:
    """One input in sentence-transformers' own terms, with its side, its prompt and an estimate of its tokens."""

    value: Any
    side: Side
    prompt: str | None
    tokens: int


def check_modalities(item: Item, modalities: set[str]) -> None:
    """Raise `MediaError` when an item holds something that a model does not take."""
    if missing := set(item.modality.split(",")) - modalities:
        raise MediaError(f"item {item.id or item.digest[:8]} holds {', '.join(sorted(missing))}, which this model does not take")


def estimated_tokens(item: Item, images: Sequence[PIL.Image.Image], videos: Sequence[Frames]) -> int:
    """About what an item takes in the sequence, by its characters and pixels."""
    tokens = len(item.text) // 3 + sum(image.width * image.height for image in images) // 784 + 16
    return tokens + sum(frame.width * frame.height for video in videos for frame in video.images) // 1568


class SentenceTransformerEngine:
    """Embeds through a loaded SentenceTransformer.

    Args:
        model: the SentenceTransformer.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.modalities = set(getattr(model, "modalities", ["text"]))

    @classmethod
    def load(cls, folder: Path, device: str, dtype: torch.dtype, kernel: str) -> SentenceTransformerEngine:
        """Load a folder with `modules.json`, without running code that it carries."""
        from sentence_transformers import SentenceTransformer

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype, "attn_implementation": kernel})
        except Exception as error:  # its loaders raise whatever the modules raise
            raise ModelError(f"{folder}: sentence-transformers cannot load it ({str(error).splitlines()[0]})") from error
        return cls(model)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.get_embedding_dimension())

    def prepare(self, items: Sequence[Item], side: Side, instructions: list[str | None]) -> list[Prepared]:
        """Decode media and put items into the form that sentence-transformers takes."""
        if side == "candidate" and any(instructions):
            raise RenderError("instructions belong to the query side; a candidate is embedded without one")
        return [self._prepare(item, side, instruction) for item, instruction in zip(items, instructions, strict=True)]

    def _prepare(self, item: Item, side: Side, prompt: str | None) -> Prepared:
        check_modalities(item, self.modalities)
        images = [part.open() for part in item.parts if isinstance(part, Image)]
        videos = [part.frames() for part in item.parts if isinstance(part, Video)]
        value: dict[str, Any] = {}
        for part in item.parts:  # the order of the keys is the order in the sequence
            if isinstance(part, Image) and "image" not in value:
                value["image"] = images if len(images) > 1 else images[0]
            elif isinstance(part, Video) and "video" not in value:
                films = [{"array": list(frames.images), "video_metadata": frames_metadata(frames)} for frames in videos]
                value["video"] = films if len(films) > 1 else films[0]
            elif isinstance(part, Text) and "text" not in value:
                value["text"] = item.text
        tokens = estimated_tokens(item, images, videos)
        # A text goes bare only where nothing else is understood; elsewhere it might be taken for the address of an image.
        bare = value["text"] if self.modalities == {"text"} else value
        return Prepared(bare, side, prompt or None, tokens)

    def cost(self, row: Prepared) -> tuple[int, int]:
        """Estimated tokens."""
        return row.tokens, 0

    def forward(self, rows: list[Prepared]) -> np.ndarray:
        """Embed one batch; rows of different sides or prompts go in separate calls.

        A query without an instruction gets the model's own query prompt, if it has one, as `encode_query` gives it.
        """
        out = np.empty((len(rows), self.dimension), np.float32)
        for side, prompt in dict.fromkeys((row.side, row.prompt) for row in rows):
            index = [i for i, row in enumerate(rows) if (row.side, row.prompt) == (side, prompt)]
            encode = self.model.encode_query if side == "query" else self.model.encode_document
            vectors = encode(
                [rows[i].value for i in index],
                prompt=prompt,
                batch_size=len(index),
                convert_to_numpy=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            out[index] = vectors
        return out

    def fingerprint_parts(self) -> list[str]:
        """Everything a vector depends on, as text."""
        from umr.models.backbone import weights_hash

        processor = getattr(self.model[0], "processor", None)
        budgets = [getattr(processor, name).to_json_string() for name in ("image_processor", "video_processor") if hasattr(processor, name)]
        texts = [str(getattr(processor, "chat_template", None)), str(self.model.prompts), str(self.model.default_prompt_name)]
        backend = getattr(self.model.tokenizer, "backend_tokenizer", None)
        tokenizer = backend.to_str() if backend is not None else repr(self.model.tokenizer)
        return ["sentence-transformer", str(self.model), *budgets, *texts, tokenizer, weights_hash(self.model)]
