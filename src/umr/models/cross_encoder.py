"""Any CrossEncoder of sentence-transformers as an engine of `Reranker`: its own rendering and head, our packing and ordering."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from umr.errors import ModelError
from umr.items import Image, Item, Text
from umr.models.backbone import weights_hash
from umr.models.sentence_transformer import check_modalities, estimated_tokens
from umr.rendering.pairs import Pair
from umr.rendering.vision import VisionBlock, frames_metadata


@dataclass(frozen=True)
class _Input:
    """An item in sentence-transformers' own terms: a text, or the contents of a message, with what belongs to its videos."""

    value: Any
    video_metadata: tuple[dict[str, Any], ...]
    tokens: int


@dataclass(frozen=True)
class PreparedPair:
    """A query and a candidate, the prompt, and an estimate of their tokens."""

    query: _Input
    candidate: _Input
    prompt: str | None

    @property
    def value(self) -> Any:
        """Two texts, or two messages: only messages keep the order of an item's parts, and take videos."""
        if isinstance(self.query.value, str):
            return self.query.value, self.candidate.value
        return [{"role": "query", "content": self.query.value}, {"role": "document", "content": self.candidate.value}]

    @property
    def video_metadata(self) -> list[dict[str, Any]]:
        """Of all videos in order."""
        return [*self.query.video_metadata, *self.candidate.video_metadata]


def is_cross_encoder(folder: Path, config: Any) -> bool:
    """Whether a folder without settings of ours is a CrossEncoder's.

    Raises:
        ModelError: it is a model of sentence-transformers, but of another kind.
    """
    if not (folder / "modules.json").is_file():
        return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    try:
        kind = json.loads((folder / "config_sentence_transformers.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config_sentence_transformers.json'}: does not say what kind of model this is ({error})") from error
    if kind != "CrossEncoder":
        raise ModelError(f"{folder}: a {kind or 'SentenceTransformer'}, not a CrossEncoder; load it with Embedder.load")
    return True


class CrossEncoderEngine:
    """Scores through a loaded CrossEncoder with one output, read as the log-odds of a match.

    Args:
        model: the CrossEncoder.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.modalities = set(getattr(model, "modalities", ["text"])) - {"message"}

    @classmethod
    def load(cls, folder: Path, device: str, dtype: torch.dtype, kernel: str) -> CrossEncoderEngine:
        """Load a CrossEncoder without running code that it carries."""
        from sentence_transformers import CrossEncoder

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = CrossEncoder(str(folder), device=device, model_kwargs={"dtype": dtype, "attn_implementation": kernel})
        except Exception as error:  # its loaders raise whatever the modules raise
            raise ModelError(f"{folder}: sentence-transformers cannot load it ({str(error).splitlines()[0]})") from error
        if model.num_labels != 1:
            raise ModelError(f"{folder}: this CrossEncoder gives {model.num_labels} scores a pair; a reranker needs one")
        return cls(model)

    def prepare(self, pairs: Sequence[Pair], done: dict[str, VisionBlock]) -> list[PreparedPair]:
        """Decode media and put pairs into the form that sentence-transformers takes. `done` is left alone."""
        items = {item.digest: item for pair in pairs for item in (pair.query, pair.candidate)}
        inputs = {digest: self._input(item) for digest, item in items.items()}
        return [PreparedPair(inputs[pair.query.digest], inputs[pair.candidate.digest], pair.instruction or None) for pair in pairs]

    def _input(self, item: Item) -> _Input:
        check_modalities(item, self.modalities)
        if self.modalities == {"text"}:
            return _Input(item.text, (), estimated_tokens(item, (), ()))
        content: list[dict[str, Any]] = []
        images, videos = [], []
        for part in item.parts:
            if isinstance(part, Text):
                content.append({"type": "text", "text": part.text})
            elif isinstance(part, Image):
                images.append(part.open())
                content.append({"type": "image", "image": images[-1]})
            else:
                videos.append(part.frames())
                content.append({"type": "video", "video": list(videos[-1].images)})
        return _Input(content, tuple(map(frames_metadata, videos)), estimated_tokens(item, images, videos))

    def cost(self, row: PreparedPair) -> tuple[int, int]:
        """Estimated tokens."""
        return row.query.tokens + row.candidate.tokens, 0

    def forward(self, rows: list[PreparedPair]) -> np.ndarray:
        """Log-odds of one batch, (R, 1)."""
        out = np.empty((len(rows), 1), np.float32)
        for index in _calls(rows):
            metadata = rows[index[0]].video_metadata
            out[index, 0] = self.model.predict(
                [rows[i].value for i in index],
                prompt=rows[index[0]].prompt,
                batch_size=len(index),
                activation_fn=torch.nn.Identity(),
                convert_to_numpy=True,
                show_progress_bar=False,
                **({"processing_kwargs": {"video": {"video_metadata": metadata}}} if metadata else {}),
            )
        return out

    @staticmethod
    def log_odds(logits_RA: np.ndarray) -> np.ndarray:
        """(R,) from what `forward` gives."""
        return logits_RA[:, 0]

    def fingerprint_parts(self) -> list[str]:
        """Everything a score depends on, as text."""
        processor = getattr(self.model[0], "processor", None)
        budgets = [getattr(processor, name).to_json_string() for name in ("image_processor", "video_processor") if hasattr(processor, name)]
        texts = [str(getattr(processor, "chat_template", None)), str(self.model.prompts), str(self.model.default_prompt_name)]
        backend = getattr(self.model.tokenizer, "backend_tokenizer", None)
        tokenizer = backend.to_str() if backend is not None else repr(self.model.tokenizer)
        return ["cross-encoder", str(self.model), *budgets, *texts, tokenizer, weights_hash(self.model)]


def _calls(rows: list[PreparedPair]) -> list[list[int]]:
    """Rows by prompt; each with a video alone, since a call sorts its rows but not the metadata given with them."""
    calls: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        calls.setdefault(("video", index) if row.video_metadata else row.prompt, []).append(index)
    return list(calls.values())
