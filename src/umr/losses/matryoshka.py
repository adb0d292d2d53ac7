"""Matryoshka: a loss of whole vectors and of their prefixes, so that vectors may be cut when they are used.

Summary:
    Weighted mean of one loss over the whole vectors and over prefixes of them, each scaled to unit length (Kusupati et al., "Matryoshka
    Representation Learning", NeurIPS 2022, arXiv 2205.13147, equation 1; they add up, here the mean keeps the size of loss and gradient).

Relations:
    Wraps any loss of unit vectors: InfoNCE with its masks and directions, distillation, own negatives. It needs no second forward pass:
    `umr.training.gradient_cache` gives every length its part through the gradient of the whole vectors. A prefix of a unit vector,
    scaled, is the prefix of the unscaled one, scaled: what is trained is what `umr.models.shorter` cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Prefixes:
    """What is trained besides whole vectors.

    Attributes:
        lengths: of prefixes, below that of the whole.
        weights: of the loss of each; that of the whole weighs 1.
    """

    lengths: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


def over_prefixes(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], query_BD: torch.Tensor, candidate_CD: torch.Tensor, prefixes: Prefixes
) -> torch.Tensor:
    """Mean of a loss over whole vectors and their prefixes.

    Args:
        loss: unit vectors of queries and candidates -> scalar.
        query_BD: unit vectors.
        candidate_CD: unit vectors.
        prefixes: lengths and weights; without any this is the loss alone.

    Returns:
        Scalar.

    Example:
        >>> q = torch.tensor([[0.6, 0.8]]); c = torch.tensor([[1.0, 0.0]])
        >>> cosine = lambda q, c: (q @ c.T).sum()
        >>> round(over_prefixes(cosine, q, c, Prefixes((1,), (3.0,))).item(), 4)  # (0.6 + 3 * 1) / 4
        0.9
    """
    total = loss(query_BD, candidate_CD)
    for length, weight in zip(prefixes.lengths, prefixes.weights, strict=True):
        total = total + weight * loss(_prefix(query_BD, length), _prefix(candidate_CD, length))
    return total / (1 + sum(prefixes.weights))


def _prefix(vectors_ND: torch.Tensor, length: int) -> torch.Tensor:
    kind = torch.promote_types(vectors_ND.dtype, torch.float32)
    return F.normalize(vectors_ND[:, :length].to(kind), dim=-1)
