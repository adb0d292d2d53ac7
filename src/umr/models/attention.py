"""Attention within the segments of one long sequence: images in a vision tower, rows in a language model.

transformers hands a whole sequence with the borders of its segments to kernels for sequences of unequal lengths. Two such kernels are
registered here, made of torch's own. `SEGMENTED` attends to segments of equal length in one call and runs anywhere. `PACKED`
does the same, but takes torch's variable-length kernel where that runs, which needs no grouping: half precision on a GPU. A language
model under one of them needs no padding, so none of its other layers computes any; `umr.models.packing` prepares its input.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

from umr.errors import ModelError

SEGMENTED, PACKED = "umr_flash_segments", "umr_flash_packed"
"""The names must contain "flash": by that word transformers' vision towers decide to pass the borders along."""
PACKABLE = ("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen2", "qwen3", "llama", "mistral")
"""Language models (transformers' `model_type`) that rows can be packed for."""


def segmented_attention(
    module: torch.nn.Module,
    query_1HLD: torch.Tensor,
    key_1HLD: torch.Tensor,
    value_1HLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    is_causal: bool,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each segment of a concatenated sequence, one call for all segments of one length.

    Args:
        module: unused; part of transformers' signature.
        query_1HLD: (1, heads, tokens of all segments, head size).
        key_1HLD: alike, with as many heads or a divisor of them; values too.
        value_1HLD: see there.
        attention_mask: unused, the segments say it all.
        cu_seq_lens_q: (segments + 1,) borders of the segments.
        is_causal: whether a token sees only those before it in its segment.
        scaling: softmax scale; None for 1/sqrt(head size).
        dropout: dropout probability of the attention weights.

    Returns:
        (1, L, H, D) outputs, and None for the weights.
    """
    lengths = (cu_seq_lens_q[1:] - cu_seq_lens_q[:-1]).tolist()
    parts = [query_1HLD[0], key_1HLD[0], value_1HLD[0]]
    back_L = None
    if (descending := sorted(lengths, reverse=True)) != lengths:
        order_L, back_L = _by_length(lengths, query_1HLD.device)
        parts = [part_HLD[:, order_L] for part_HLD in parts]
    outs, start = [], 0
    for length, group in groupby(descending):
        count = len(list(group))
        q, k, v = (part_HLD[:, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1) for part_HLD in parts)
        gqa = q.shape[1] != k.shape[1]
        out_NHLD = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=is_causal, enable_gqa=gqa)
        outs.append(out_NHLD.transpose(1, 2).flatten(0, 1))
        start += count * length
    out_LHD = torch.cat(outs) if len(outs) > 1 else outs[0]
    return (out_LHD if back_L is None else out_LHD[back_L])[None], None


def _by_length(lengths: list[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of segments with the longest segment first, equal ones in their order; and the way back."""
    length_S = torch.tensor(lengths)
    length_L = length_S.repeat_interleave(length_S)
    order_L = length_L.argsort(descending=True, stable=True)
    return order_L.to(device), order_L.argsort().to(device)


def packed_attention(
    module: torch.nn.Module,
    query_1HLD: torch.Tensor,
    key_1HLD: torch.Tensor,
    value_1HLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    is_causal: bool,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """As `segmented_attention`, by torch's variable-length kernel where it runs.

    Args:
        module: unused; part of transformers' signature.
        query_1HLD: as there.
        key_1HLD: as there.
        value_1HLD: as there.
        attention_mask: unused.
        cu_seq_lens_q: (segments + 1,) borders of the segments.
        max_length_q: tokens of the longest segment.
        is_causal: as there.
        scaling: as there.
        dropout: as there.

    Returns:
        (1, L, H, D) outputs, and None for the weights.
    """
    kind = query_1HLD.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query_1HLD.dtype
    if dropout or not _varlen_runs(query_1HLD, dtype):
        return segmented_attention(
            module,
            query_1HLD,
            key_1HLD,
            value_1HLD,
            attention_mask,
            cu_seq_lens_q=cu_seq_lens_q,
            is_causal=is_causal,
            scaling=scaling,
            dropout=dropout,
        )
    from torch.nn.attention.varlen import varlen_attn

    # Unlike torch's other attention, this one is not cast under autocast.
    q, k, v = (part_1HLD[0].transpose(0, 1).to(dtype) for part_1HLD in (query_1HLD, key_1HLD, value_1HLD))
    borders, window = cu_seq_lens_q.int(), (-1, 0) if is_causal else (-1, -1)
    gqa = q.shape[1] != k.shape[1]
    out_LHD: Any = varlen_attn(q, k, v, borders, borders, max_length_q, max_length_q, scale=scaling, window_size=window, enable_gqa=gqa)
    return out_LHD[None], None


def _varlen_runs(query: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether torch's variable-length kernel (FlashAttention 2) takes such a tensor when it is cast to a type."""
    size = query.shape[-1]
    if not query.is_cuda or dtype not in (torch.float16, torch.bfloat16) or size % 8 or size > 256:
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(query.device) >= (8, 0)


AttentionInterface.register(SEGMENTED, segmented_attention)
AttentionInterface.register(PACKED, packed_attention)


class _MatmulPatches(torch.nn.Conv3d):
    """A patch embedding whose kernel covers each patch exactly: one matrix product instead of a convolution."""

    def forward(self, patches_PCTHW: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        if patches_PCTHW.shape[2] == 2 and torch.equal(patches_PCTHW[:, :, 0], patches_PCTHW[:, :, 1]):
            # A still image fills both frames of its patches: add up the weights instead of multiplying twice.
            patches_PCTHW, weight = patches_PCTHW[:, :, :1], weight.sum(2, keepdim=True)
        flat_PO = F.linear(patches_PCTHW.flatten(1), weight.flatten(1), self.bias)
        return flat_PO[:, :, None, None, None]


def use_fast_vision(model: PreTrainedModel, kernel: str = SEGMENTED) -> None:
    """Switch a Qwen-VL model's vision tower to a kernel of this module and to matrix-product patch embedding, in place.

    Parameters, their names and the results stay what they were (to rounding).
    """
    tower = getattr(model, "visual", None)
    if tower is None:
        return
    tower.config._attn_implementation_internal = kernel
    projection = getattr(tower.patch_embed, "proj", None)
    if type(projection) is torch.nn.Conv3d and projection.kernel_size == projection.stride:
        projection.__class__ = _MatmulPatches


def use_packed_rows(model: PreTrainedModel, where: str | Path) -> None:
    """Switch a language model to `PACKED`, in place: from now on it takes rows in one line, see `umr.models.packing`.

    Raises:
        ModelError: for a kind of model that is not known to hand the borders of rows to its kernel, and for a sliding window.
    """
    text = model.config.get_text_config()
    if text.model_type not in PACKABLE:
        raise ModelError(f"{where}: kernel='packed' is not known to work for {text.model_type} models; use kernel='sdpa'")
    kinds = getattr(text, "layer_types", None)
    if set(kinds) != {"full_attention"} if kinds else getattr(text, "sliding_window", None) is not None:
        raise ModelError(f"{where}: kernel='packed' knows no sliding window, which this model has; use kernel='sdpa'")
    text._attn_implementation_internal = PACKED


def is_packed(model: torch.nn.Module) -> bool:
    """Whether a model, with adapters around it or not, takes rows in one line."""
    config: Any = model.config
    return bool(config.get_text_config()._attn_implementation == PACKED)
