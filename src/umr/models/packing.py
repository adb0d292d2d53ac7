"""Rows without padding: all their tokens in one line, positions that begin anew with each row, borders that attention keeps within.

Such a batch is for a model that was loaded with `kernel="packed"` (`umr.models.attention.use_packed_rows`). Any other model gets its
rows padded to the longest, which is the reference: both give the same states. `pooled_states` serves either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from umr.models import backbone
from umr.models.attention import is_packed
from umr.rendering.renderer import Rendered


def pooled_states(
    model: Any, rows: Sequence[Rendered], family: str, pad_id: int, positions: backbone.Positions
) -> tuple[torch.Tensor, list[int]]:
    """Run rows through a backbone in one batch.

    Args:
        model: a transformers model without a head; adapters may lie around it.
        rows: B rendered rows.
        family: transformers' `model_type`.
        pad_id: token id of padding.
        positions: as `backbone.collate` takes them.

    Returns:
        Last hidden states of the pooled tokens, (N, D), row by row in the rows' order, and how many each row has.
    """
    device = next(model.parameters()).device
    batch, pool_BL = backbone.collate(rows, pad_id, positions)
    if is_packed(model):
        batch, pool_BL = lined_up(backbone.inner_model(model), batch, pool_BL)
    hidden_BLD = backbone.hidden_states(model, backbone.moved(batch, device), family)
    return hidden_BLD[pool_BL.to(device)], [int(row.pool_L.sum()) for row in rows]


def lined_up(model: Any, batch: backbone.Batch, pool_BL: torch.Tensor) -> tuple[backbone.Batch, torch.Tensor]:
    """Turn a padded batch into one line of the same tokens without the padding.

    Args:
        model: the model itself, without adapters around it.
        batch: as `backbone.collate` makes it, on the CPU: positions of vision tokens are counted out row by row.
        pool_BL: bool.

    Returns:
        The model's keyword arguments, with a batch size of 1, and pool_1T.
    """
    mask_BL = batch["attention_mask"].bool()
    lengths_B = mask_BL.sum(1)
    line = {name: tensor for name, tensor in batch.items() if name not in ("attention_mask", "mm_token_type_ids")}
    line["input_ids"] = batch["input_ids"][mask_BL][None]
    line["position_ids"] = _positions(model, batch, mask_BL)[..., mask_BL].unsqueeze(-2)
    line["cu_seq_lens_q"] = F.pad(lengths_B.cumsum(0), (1, 0)).int()
    line["max_length_q"] = int(lengths_B.max())
    return line, pool_BL[mask_BL][None]


def _positions(model: Any, batch: backbone.Batch, mask_BL: torch.Tensor) -> torch.Tensor:
    """(3, B, L) where tokens stand in time, height and width, else (B, L)."""
    if "position_ids" in batch:
        given_3BL: torch.Tensor = batch["position_ids"]
        return given_3BL
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    if "mm_token_type_ids" in batch and hasattr(model, "get_rope_index"):
        given = {name: batch[name] for name in names if name in batch}
        positions_3BL: torch.Tensor = model.get_rope_index(**given, attention_mask=mask_BL)[0]
        return positions_3BL
    return mask_BL.cumsum(1) - 1
