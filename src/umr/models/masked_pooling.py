"""Mean pooling that leaves a marked span out: what a saved model carries for sentence-transformers.

sentence-transformers' own Pooling cannot exclude the instruction of chat models. A model folder that needs it holds a copy of
this file, which depends on torch and sentence-transformers alone; it is loaded with `trust_remote_code=True`.
"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.base.modules import Module


class MaskedMeanPooling(Module):
    """Mean over all tokens but the first span from `start_token_id` to `end_token_id`, both included.

    Args:
        embedding_dimension: length of the vector: this many leading components of the hidden states are kept.
        start_token_id: opens the span; -1 for none. A row without it is averaged whole.
        end_token_id: closes the span.
    """

    config_keys = ["embedding_dimension", "start_token_id", "end_token_id"]  # noqa: RUF012 - the base class declares it so

    def __init__(self, embedding_dimension: int, start_token_id: int, end_token_id: int) -> None:
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.start_token_id = start_token_id
        self.end_token_id = end_token_id

    def kept(self, features: dict[str, Any]) -> torch.Tensor:
        """The tokens that are pooled, bool (B, L)."""
        ids, attended = features["input_ids"], features["attention_mask"].bool()
        starts = (ids == self.start_token_id) & attended
        opened = starts.int().cumsum(1) > 0
        ends = (ids == self.end_token_id) & opened
        closed_before = ends.int().cumsum(1) - ends.int() > 0
        kept: torch.Tensor = attended & ~(opened & ~closed_before)
        return kept

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: D102 - documented by the base class
        hidden, keep = features["token_embeddings"], self.kept(features)
        states = hidden if hidden.dtype == torch.float64 else hidden.float()
        total = states.masked_fill(~keep[..., None], 0.0).sum(1)
        mean = total / keep.sum(1, keepdim=True).clamp(min=1).to(states.dtype)
        features["sentence_embedding"] = mean[:, : self.embedding_dimension]
        return features

    def get_embedding_dimension(self) -> int:  # noqa: D102
        return self.embedding_dimension

    get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:  # noqa: D102
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> MaskedMeanPooling:  # noqa: D102
        where = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        return cls(**cls.load_config(model_name_or_path, **{name: kwargs[name] for name in where if name in kwargs}))
