"""Latent attention that leaves a marked span out: what a saved model carries for sentence-transformers, with the two files it imports.

Depends on torch, safetensors and sentence-transformers alone; loaded with `trust_remote_code=True`.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .latent_attention import LatentAttention, LatentSizes
from .masked_pooling import MaskedMeanPooling


class MaskedLatentPooling(MaskedMeanPooling):
    """As `MaskedMeanPooling`, with a latent-attention block before the mean.

    Args:
        embedding_dimension: length of the vector: this many leading components are kept.
        start_token_id: opens the span that is left out; -1 for none.
        end_token_id: closes it.
        width: the model's hidden size.
        sizes: of the block, as `LatentSizes` takes them.
    """

    config_keys = [*MaskedMeanPooling.config_keys, "width", "sizes"]  # noqa: RUF012 - the base class declares it so

    def __init__(self, embedding_dimension: int, start_token_id: int, end_token_id: int, width: int, sizes: dict[str, Any]) -> None:
        super().__init__(embedding_dimension, start_token_id, end_token_id)
        self.width, self.sizes = width, sizes
        self.block = LatentAttention(width, LatentSizes(**sizes))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: D102 - documented by the base class
        pooled: torch.Tensor = self.block(features["token_embeddings"], self.kept(features))
        features["sentence_embedding"] = pooled[:, : self.embedding_dimension]
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:  # noqa: D102
        super().save(output_path)
        save_file({name: tensor.contiguous() for name, tensor in self.block.state_dict().items()}, f"{output_path}/model.safetensors")

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> MaskedLatentPooling:  # noqa: D102
        where = {name: kwargs[name] for name in ("subfolder", "token", "cache_folder", "revision", "local_files_only") if name in kwargs}
        module = cls(**cls.load_config(model_name_or_path, **where))
        path = cls.load_file_path(model_name_or_path, "model.safetensors", **where)
        if path is None:
            raise OSError(f"{model_name_or_path}: the pooling's weights (1_Pooling/model.safetensors) are missing")
        module.block.load_state_dict(load_file(path))
        return module
