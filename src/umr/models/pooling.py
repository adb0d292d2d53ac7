"""From hidden states to unit vectors, in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from umr.errors import ModelError
from umr.models.latent_attention import LatentAttention, LatentSizes

WEIGHTS = Path("1_Pooling") / "model.safetensors"
"""Weights of a pooling in a model folder, where sentence-transformers looks for them."""


def means(token_ND: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Mean over the pooled tokens of each row; every pooling of ours is one, of other tokens (spec/umarvel.md 1.3).

    Args:
        token_ND: their hidden states, row by row, any float type; half precision is averaged in fp32.
        counts: how many of them each of the B rows has, at least one.

    Returns:
        (B, D), fp32 (fp64 for fp64 input).
    """
    token_ND = token_ND if token_ND.dtype == torch.float64 else token_ND.float()
    return torch.segment_reduce(token_ND, "mean", lengths=torch.tensor(counts, device=token_ND.device))


def finish(pooled_BD: torch.Tensor, dimension: int | None = None) -> torch.Tensor:
    """Keep the first `dimension` components (all when None) and scale to unit length."""
    return F.normalize(pooled_BD if dimension is None else pooled_BD[:, :dimension], dim=-1)


def latent_attention(folder: Path, sizes: LatentSizes | None, width: int) -> LatentAttention:
    """The latent attention of a model folder, or a fresh one where it has none.

    Args:
        folder: model folder.
        sizes: of the block; None for NV-Embed's.
        width: the model's hidden size.

    Raises:
        ModelError: the weights there are damaged, or have other sizes.
    """
    with torch.device("meta"):
        block = LatentAttention(width, sizes or LatentSizes())
    block, path = block.to_empty(device="cpu"), folder / WEIGHTS
    if not path.is_file():
        block.draw()
        return block.eval()
    try:
        block.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).replace("\n", " ").replace("\t", "")
        raise ModelError(f"{path}: not the weights of latent attention with the sizes in umr.json ({reason})") from error
    return block.eval()


def save_latent_attention(block: LatentAttention, folder: Path) -> None:
    """Write the weights into a model folder in the making."""
    (folder / WEIGHTS).parent.mkdir(exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in block.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
