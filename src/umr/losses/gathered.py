"""One global batch out of every device's own: queries, candidates and their identities."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from umr.losses.infonce import Columns


class _Gather(torch.autograd.Function):
    """Concatenate rows of all ranks; the gradient of a row is the sum of what all ranks' losses want of it."""

    @staticmethod
    def forward(ctx: Any, rows_ND: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        ctx.sizes = sizes
        return gather_rows(rows_ND, sizes)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        start = sum(ctx.sizes[: dist.get_rank()])
        return grad[start : start + ctx.sizes[dist.get_rank()]], None


def world_size() -> int:
    """Number of training processes; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 without torch.distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def barrier() -> None:
    """Wait until every process has come here; nothing without torch.distributed."""
    if world_size() > 1:
        dist.barrier()


def gather_sizes(count: int, device: torch.device) -> list[int]:
    """How many rows each rank has."""
    sizes = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([count], device=device))
    return [int(size) for size in sizes]


def gather_rows(rows: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Concatenate the first dimension over ranks, without gradient."""
    longest = max(sizes)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def gather_batch(query_BD: torch.Tensor, candidate_CD: torch.Tensor, columns: Columns) -> tuple[torch.Tensor, torch.Tensor, Columns, slice]:
    """Join the batches of all ranks; a candidate that several ranks hold becomes one column.

    Args:
        query_BD: this rank's queries, with gradient.
        candidate_CD: this rank's candidates, with gradient.
        columns: this rank's identities.

    Returns:
        Global queries, global candidates, global identities, and the rows of this rank's queries. Unchanged on one process.
    """
    if world_size() == 1:
        return query_BD, candidate_CD, columns, slice(0, len(query_BD))
    device = query_BD.device
    queries, candidates = gather_sizes(len(query_BD), device), gather_sizes(len(candidate_CD), device)
    all_query_BD, all_candidate_CD = _Gather.apply(query_BD, queries), _Gather.apply(candidate_CD, candidates)
    did_C, content_C = gather_rows(columns.did_C, candidates), gather_rows(columns.content_C, candidates)
    width = max(gather_sizes(columns.positives_BP.shape[1], device))
    positives_BP = columns.positives_BP.new_zeros(len(query_BD), width)
    positives_BP[:, : columns.positives_BP.shape[1]] = columns.positives_BP
    offset = sum(candidates[: rank()])
    target_B = gather_rows(columns.target_B + offset, queries)
    # Keep the first column of each id, and point the targets there.
    unique, inverse = torch.unique(did_C, return_inverse=True)
    first = torch.full((len(unique),), len(did_C), dtype=torch.long, device=device)
    first.scatter_reduce_(0, inverse, torch.arange(len(did_C), device=device), "amin")
    kept, order = first.sort()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=device)
    joined = Columns(place[inverse[target_B]], did_C[kept], content_C[kept], gather_rows(positives_BP, queries))
    start = sum(queries[: rank()])
    return all_query_BD, all_candidate_CD[kept], joined, slice(start, start + len(query_BD))
