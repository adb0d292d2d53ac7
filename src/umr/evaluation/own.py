"""Leaving a query out of its own results, where ids of queries and candidates are of one kind.

ArguAna and Quora search among documents that their queries are; BEIR's own evaluation drops a result whose id is the query's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from umr.data.benchmark import Benchmark, Pool
from umr.progress import Bar
from umr.protocols import Vectors
from umr.store import VectorStore, VectorView, exact_topk

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


def own_rows(benchmark: Benchmark, qids: Sequence[str], pool: Pool) -> Rows | None:
    """The row of each query in the pool, -1 where it is not there, shape (Q,); `None` where no query is."""
    if not benchmark.shared_ids:
        return None
    own_Q = pool.find(qids)
    return own_Q if (own_Q >= 0).any() else None


def topk_of_others(
    queries_QD: Vectors, candidates: VectorStore | VectorView, depth: int, own_Q: Rows | None, bar: Bar | None = None
) -> tuple[Rows, Scores]:
    """The best candidates of each query without the query itself.

    Args:
        queries_QD: Q vectors.
        candidates: what is searched.
        depth: K, results a query.
        own_Q: from `own_rows`.
        bar: as of `exact_topk`.

    Returns:
        Rows and scores, best first, (Q, K), or fewer columns for a small pool.
    """
    if own_Q is None:
        return exact_topk(queries_QD, candidates, depth, bar=bar)
    rows_QK, scores_QK = exact_topk(queries_QD, candidates, depth + 1, bar=bar)
    # Whoever has not found itself gives up its last result, so that all have as many.
    out_Q = np.where((rows_QK == own_Q[:, None]).any(axis=1), (rows_QK == own_Q[:, None]).argmax(axis=1), rows_QK.shape[1] - 1)
    keep_QK = np.arange(rows_QK.shape[1]) != out_Q[:, None]
    shape = len(rows_QK), rows_QK.shape[1] - 1
    return rows_QK[keep_QK].reshape(shape), scores_QK[keep_QK].reshape(shape)
