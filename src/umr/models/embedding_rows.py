"""Rows of the embedding matrix for tokens that have none."""

from __future__ import annotations

from typing import Any

import torch


def make_room(network: Any, tokens: int) -> int:
    """Let the embedding matrix have a row for every token; how many are new. New rows are the mean of the old ones."""
    rows = int(network.get_input_embeddings().weight.shape[0])
    if tokens <= rows:
        return 0
    mean_D = network.get_input_embeddings().weight.detach().float().mean(0)
    network.resize_token_embeddings(tokens, mean_resizing=False)
    with torch.no_grad():
        weight_VD = network.get_input_embeddings().weight
        weight_VD[rows:] = mean_D.to(weight_VD.dtype)
    return tokens - rows
