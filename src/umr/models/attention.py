"""Attention inside the vision tower, one call for all images of the same size.

transformers' towers run one attention call per image (and per window) unless a variable-length kernel is asked for; then
they hand over the whole batch with its borders. This module registers such a kernel, made of torch's own: segments of equal
length are stacked and attended to in one call. Equal results, fewer and larger calls.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

KERNEL = "umr_flash_segments"
"""The name must contain "flash": by that word transformers' vision towers decide to pass the borders along."""


def segmented_attention(
    module: torch.nn.Module,
    query_1HLD: torch.Tensor,
    key_1HLD: torch.Tensor,
    value_1HLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each segment of a concatenated sequence, in both directions.

    Args:
        module: unused; part of transformers' signature.
        query_1HLD: (1, heads, tokens of all segments, head size); keys and values alike.
        attention_mask: unused, the segments say it all.
        cu_seq_lens_q: (segments + 1,) borders of the segments.
        scaling: softmax scale; None for 1/sqrt(head size).
        dropout: dropout probability of the attention weights.

    Returns:
        (1, L, H, D) outputs, and None for the weights.
    """
    lengths = (cu_seq_lens_q[1:] - cu_seq_lens_q[:-1]).tolist()
    heads, size = query_1HLD.shape[1], query_1HLD.shape[3]

    def attend(*tensors_HLD: torch.Tensor, count: int, length: int) -> torch.Tensor:
        q, k, v = (t.view(heads, count, length, size).transpose(0, 1) for t in tensors_HLD)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        return out.transpose(1, 2).reshape(count * length, heads, size)

    q, k, v = (t[0].contiguous() for t in (query_1HLD, key_1HLD, value_1HLD))
    if len(set(lengths)) == 1:
        return attend(q, k, v, count=len(lengths), length=lengths[0])[None], None
    segment_of_L = torch.repeat_interleave(torch.tensor(lengths))
    length_of_L = torch.tensor(lengths)[segment_of_L]
    out_LHD = torch.empty(q.shape[1], heads, size, dtype=q.dtype, device=q.device)
    places, outs = [], []
    for length in sorted(set(lengths)):
        place = torch.nonzero(length_of_L == length)[:, 0].to(q.device)
        places.append(place)
        outs.append(attend(*(t[:, place] for t in (q, k, v)), count=lengths.count(length), length=length))
    out_LHD = out_LHD.index_copy(0, torch.cat(places), torch.cat(outs))
    return out_LHD[None], None


AttentionInterface.register(KERNEL, segmented_attention)


class _MatmulPatches(torch.nn.Conv3d):
    """A patch embedding whose kernel covers each patch exactly: one matrix product instead of a convolution."""

    def forward(self, patches_PCTHW: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        if patches_PCTHW.shape[2] == 2 and torch.equal(patches_PCTHW[:, :, 0], patches_PCTHW[:, :, 1]):
            # A still image fills both frames of its patches: add up the weights instead of multiplying twice.
            patches_PCTHW, weight = patches_PCTHW[:, :, :1], weight.sum(2, keepdim=True)
        flat_PO = F.linear(patches_PCTHW.flatten(1), weight.flatten(1), self.bias)
        return flat_PO[:, :, None, None, None]


def use_fast_vision(model: PreTrainedModel) -> None:
    """Switch a Qwen-VL model's vision tower to segmented attention and matrix-product patch embedding, in place.

    Parameters, their names and the results stay what they were (to rounding).
    """
    tower = getattr(model, "visual", None)
    if tower is None:
        return
    tower.config._attn_implementation_internal = KERNEL
    projection = getattr(tower.patch_embed, "proj", None)
    if type(projection) is torch.nn.Conv3d and projection.kernel_size == projection.stride:
        projection.__class__ = _MatmulPatches
