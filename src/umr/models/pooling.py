"""From hidden states to unit vectors, in fp32."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def masked_mean(hidden_BLD: torch.Tensor, pool_BL: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens of `pool_BL`; every pooling of ours is one, with another mask (spec/umarvel.md 1.3).

    Args:
        hidden_BLD: hidden states, any float type; half precision is averaged in fp32.
        pool_BL: bool, at least one True a row.

    Returns:
        (B, D), fp32 (fp64 for fp64 input).
    """
    hidden_BLD = hidden_BLD if hidden_BLD.dtype == torch.float64 else hidden_BLD.float()
    # Not a product with the mask: a NaN or inf in a padded place must not survive as NaN.
    kept_BLD = hidden_BLD.masked_fill(~pool_BL[..., None], 0.0)
    return kept_BLD.sum(1) / pool_BL.sum(1, keepdim=True).to(hidden_BLD.dtype)


def finish(pooled_BD: torch.Tensor, dimension: int | None = None) -> torch.Tensor:
    """Keep the first `dimension` components (all when None) and scale to unit length."""
    return F.normalize(pooled_BD if dimension is None else pooled_BD[:, :dimension], dim=-1)
