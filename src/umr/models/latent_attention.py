"""Latent attention: each token looks at a trained array of latents before the mean is taken (NV-Embed, arXiv 2405.17428, section 3.1).

What the paper leaves open is as in NV-Embed's released weights: layer norms before both halves and on the latents, no biases in the
attention, heads that may be wider than the model, and a gated feed-forward (a linear map to twice its width, whose one half is
multiplied with the GELU of the other).

This file depends on torch alone, because a saved model carries a copy of it for sentence-transformers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class LatentSizes:
    """Sizes of a latent-attention block. The defaults are NV-Embed's.

    Attributes:
        latents: rows of the trained array.
        heads: attention heads.
        head_width: width of one head; None for the model's hidden size.
        multiplier: width of the feed-forward over the hidden size.
    """

    latents: int = 512
    heads: int = 8
    head_width: int | None = None
    multiplier: int = 4


class LatentAttention(torch.nn.Module):
    """Hidden states to one vector a row: attention to the latents, feed-forward, mean over the pooled tokens.

    With h a token's hidden state, Z the latents, N a layer norm each:

        h <- h + Attention(queries N(h), keys and values N(Z))
        h <- h + W2 (a * GELU(b)) + c2,  where (a, b) = W1 N(h) + c1

    All arithmetic is fp32 (fp64 in a model of doubles), whatever the hidden states are.

    Args:
        width: the model's hidden size, D.
        sizes: of the block.
    """

    def __init__(self, width: int, sizes: LatentSizes) -> None:
        super().__init__()
        inner, self.heads = sizes.heads * (sizes.head_width or width), sizes.heads
        self.latents = torch.nn.Parameter(torch.empty(sizes.latents, width))
        self.norm = torch.nn.LayerNorm(width)
        self.norm_latents = torch.nn.LayerNorm(width)
        self.to_query = torch.nn.Linear(width, inner, bias=False)
        self.to_key_value = torch.nn.Linear(width, 2 * inner, bias=False)
        self.to_output = torch.nn.Linear(inner, width, bias=False)
        self.norm_feed = torch.nn.LayerNorm(width)
        self.feed_in = torch.nn.Linear(width, 2 * sizes.multiplier * width)
        self.feed_out = torch.nn.Linear(sizes.multiplier * width, width)

    def draw(self, seed: int = 0) -> None:
        """Set fresh weights: a block whose two last maps are zero, so that training begins with the plain mean."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for norm in (self.norm, self.norm_latents, self.norm_feed):
                norm.reset_parameters()
            self.latents.normal_(generator=generator)
            for linear in (self.to_query, self.to_key_value, self.feed_in):
                linear.weight.normal_(0, linear.in_features**-0.5, generator=generator)
            for zero in (self.feed_in.bias, self.to_output.weight, self.feed_out.weight, self.feed_out.bias):
                zero.zero_()

    def forward(self, hidden_BLD: torch.Tensor, pool_BL: torch.Tensor) -> torch.Tensor:
        """Pool each row over its tokens of `pool_BL`; the others have no effect and cost nothing.

        Args:
            hidden_BLD: hidden states, any float type.
            pool_BL: bool.

        Returns:
            (B, D), not normalised; fp32, or fp64 in a model of doubles.
        """
        return self.pool(hidden_BLD[pool_BL], pool_BL.sum(1).tolist())

    def pool(self, token_ND: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Pool rows whose tokens have been picked.

        Args:
            token_ND: hidden states of the pooled tokens, row by row, any float type.
            counts: how many of them each of the B rows has.

        Returns:
            As `forward`.
        """
        with torch.autocast(token_ND.device.type, enabled=False):
            hidden_ND = token_ND.to(self.latents.dtype)
            hidden_ND = hidden_ND + self._attend(self.norm(hidden_ND))
            value_NF, gate_NF = self.feed_in(self.norm_feed(hidden_ND)).chunk(2, -1)
            # The last map is linear, so it may come after the mean: once a row instead of once a token.
            fed_BD: torch.Tensor = self.feed_out(_means(value_NF * F.gelu(gate_NF), counts))
            return _means(hidden_ND, counts) + fed_BD

    def _attend(self, token_ND: torch.Tensor) -> torch.Tensor:
        heads, width = self.heads, token_ND.shape[1]
        key_RI, value_RI = self.to_key_value(self.norm_latents(self.latents)).chunk(2, -1)
        key_HRE, value_HRE = (one.unflatten(1, (heads, -1)).transpose(0, 1) for one in (key_RI, value_RI))
        latents, size = key_HRE.shape[1:]
        if latents >= size:
            query_HNE = self.to_query(token_ND).unflatten(1, (heads, -1)).transpose(0, 1)
            out_HNE = F.scaled_dot_product_attention(query_HNE[None], key_HRE[None], value_HRE[None])[0]
            attended_ND: torch.Tensor = self.to_output(out_HNE.transpose(0, 1).flatten(1))
            return attended_ND
        # Heads wider than there are latents: multiply the maps into keys and values first, and no token becomes that wide.
        key_HRD = key_HRE @ self.to_query.weight.view(heads, size, width)
        value_HRD = value_HRE @ self.to_output.weight.view(width, heads, size).permute(1, 2, 0)
        score_NHR = (token_ND @ key_HRD.flatten(0, 1).T).unflatten(1, (heads, latents)) / math.sqrt(size)
        return score_NHR.softmax(-1).flatten(1) @ value_HRD.flatten(0, 1)


def _means(token_NX: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Means of consecutive tokens, (B, X); zeros for a row without one."""
    return torch.stack([row_LX.sum(0) / max(1, len(row_LX)) for row_LX in token_NX.split(counts)])
