"""A ranking loss for a reranker: the candidates of one query compete, so that a query's own difficulty drops out.

Localized contrastive estimation (Gao, Dai and Callan, arXiv 2101.08751, section 3.2): cross-entropy over the scores of a query's
candidates, the positive being the right one.
"""

from __future__ import annotations

import torch


def ranking_loss(odds_R: torch.Tensor, query_R: torch.Tensor) -> torch.Tensor:
    """Sum over queries of the cross-entropy between their candidates.

    Args:
        odds_R: log-odds of yes for R candidates.
        query_R: int64, which query each is a candidate of; a query's rows lie together, its positive first. Rows with a negative
            number belong to none and are left out.

    Returns:
        Scalar of the type of `odds_R`. A query whose positive stands alone adds nothing.
    """
    kept_R = query_R >= 0
    if not bool(kept_R.any()):
        return odds_R.sum() * 0.0
    odds_R = odds_R[kept_R]
    _, size_Q = query_R[kept_R].unique_consecutive(return_counts=True)
    first_Q = size_Q.cumsum(0) - size_Q
    place_K = torch.arange(int(size_Q.max()), device=odds_R.device)
    index_QK = (first_Q[:, None] + place_K).clamp(max=len(odds_R) - 1)
    odds_QK = odds_R[index_QK].masked_fill(place_K >= size_Q[:, None], float("-inf"))
    return -odds_QK.log_softmax(1)[:, 0].sum()


def groups_of(query_R: torch.Tensor) -> list[list[int]]:
    """Places of rows by query, as `ranking_loss` takes them; a row of no query is a group of its own."""
    found: dict[int, list[int]] = {}
    for row, query in enumerate(query_R.tolist()):
        found.setdefault(query if query >= 0 else -1 - row, []).append(row)
    return list(found.values())
