"""InfoNCE over in-batch, cross-device and mined negatives, with known false negatives left out.

Summary:
    Cross-entropy of each query against all candidates of the batch, its positive being the right answer; optionally of each
    positive against all queries as well (spec/umarvel.md 1.5; there in bf16 and without masks, here in fp32 with them).

Relations:
    The columns are whatever the batch holds: positives of all queries and mined negatives of all queries, from all devices.
    `gathered.py` makes one batch of several devices; `umr.training.gradient_cache` makes it fit into memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Columns:
    """The candidates of a batch by identity, and who they are positives of. All ids are 64-bit hashes.

    Attributes:
        target_B: column of each query's positive.
        did_C: id of each column.
        content_C: content hash of each column; equal content under another id is no negative.
        positives_BP: ids of all known positives of each query, padded with 0.
    """

    target_B: torch.Tensor
    did_C: torch.Tensor
    content_C: torch.Tensor
    positives_BP: torch.Tensor


def _right_answers(target_B: torch.Tensor, positives_BP: torch.Tensor, did_C: torch.Tensor, content_C: torch.Tensor) -> torch.Tensor:
    """Mark the columns known to be right for a query: its target, its other positives by id, and copies of any of these.

    Returns:
        bool (B, C).
    """
    # Column by column of the few positives, so that no (B, C, P) tensor exists.
    known_BC = torch.arange(len(did_C), device=did_C.device) == target_B[:, None]
    for column in positives_BP.T:
        known_BC |= (column[:, None] == did_C) & (column != 0)[:, None]
    contents, content_of_C = torch.unique(content_C, return_inverse=True)
    if len(contents) < len(content_C):
        known_BG = torch.zeros(len(target_B), len(contents), dtype=torch.float32, device=did_C.device)
        known_BC = known_BG.index_add_(1, content_of_C, known_BC.float())[:, content_of_C] > 0
    return known_BC


def false_negatives(columns: Columns, rows: slice | None = None) -> torch.Tensor:
    """Mark the columns that must not be negatives of a query: its other positives, and copies of any of its positives.

    Args:
        columns: identities of the batch.
        rows: queries to compute; None for all.

    Returns:
        bool (B, C), False at the target itself.
    """
    rows = rows or slice(None)
    target_B = columns.target_B[rows]
    return _right_answers(target_B, columns.positives_BP[rows], columns.did_C, columns.content_C).scatter(1, target_B[:, None], False)


def false_positives_of_candidates(columns: Columns, rows: slice | None = None) -> torch.Tensor:
    """The same for the direction candidate -> query: which other queries also have this query's positive as theirs.

    Returns:
        bool (B, all queries), False at the query itself.
    """
    rows = rows or slice(None)
    right_QC = _right_answers(columns.target_B, columns.positives_BP, columns.did_C, columns.content_C)
    own_B = torch.arange(len(right_QC), device=right_QC.device)[rows]
    return right_QC[:, columns.target_B[rows]].T.scatter(1, own_B[:, None], False)


def info_nce(
    query_BD: torch.Tensor,
    candidate_CD: torch.Tensor,
    columns: Columns,
    temperature: torch.Tensor | float,
    *,
    both_ways: bool = False,
    mask: bool = True,
    rows: slice | None = None,
) -> torch.Tensor:
    """InfoNCE of the queries `rows` against all columns.

    Args:
        query_BD: unit vectors of all queries of the global batch.
        candidate_CD: unit vectors of all columns.
        columns: their identities.
        temperature: logits are cosine / temperature.
        both_ways: average with the loss of each positive against all queries (the paper's caption stage).
        mask: leave known false negatives out.
        rows: the queries whose loss is computed here (a device's own); None for all.

    Returns:
        Scalar: the sum over `rows` divided by the number of *all* queries, so that the devices' losses add up to the mean.
        fp32, or fp64 for fp64 input.

    Example:
        >>> q = torch.eye(2); same = torch.tensor([1, 2])
        >>> columns = Columns(torch.tensor([0, 1]), same, same, same[:, None])
        >>> round(info_nce(q, q, columns, temperature=1.0).item(), 4)
        0.3133
    """
    rows = rows or slice(None)
    kind = torch.promote_types(query_BD.dtype, torch.float32)
    query_BD, candidate_CD = query_BD.to(kind), candidate_CD.to(kind)
    excluded_BC = false_negatives(columns, rows) if mask else None
    loss = _cross_entropy(query_BD[rows] @ candidate_CD.T / temperature, columns.target_B[rows], excluded_BC)
    if both_ways:
        positive_BD = candidate_CD[columns.target_B[rows]]
        own_B = torch.arange(len(query_BD), device=query_BD.device)[rows]
        shared_BQ = false_positives_of_candidates(columns, rows) if mask else None
        loss = (loss + _cross_entropy(positive_BD @ query_BD.T / temperature, own_B, shared_BQ)) / 2
    return loss / len(query_BD)


def _cross_entropy(logits_BC: torch.Tensor, target_B: torch.Tensor, excluded_BC: torch.Tensor | None) -> torch.Tensor:
    if excluded_BC is not None:
        logits_BC = logits_BC.masked_fill(excluded_BC, float("-inf"))
    return F.cross_entropy(logits_BC, target_B, reduction="sum")
