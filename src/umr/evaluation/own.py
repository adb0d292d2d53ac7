"""Leaving a query out of its own results, where ids of queries and candidates are of one kind.

ArguAna and Quora search among documents that their queries are; BEIR's own evaluation drops a result whose id is the query's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from umr.data.benchmark import Benchmark, Pool

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


def own_rows(benchmark: Benchmark, qids: Sequence[str], pool: Pool) -> Rows | None:
    """The row of each query in the pool, -1 where it is not there, shape (Q,); `None` where no query is."""
    if not benchmark.shared_ids:
        return None
    own_Q = pool.find(qids)
    return own_Q if (own_Q >= 0).any() else None


def without_own(rows_QK: Rows, scores_QK: Scores, own_Q: Rows | None, depth: int) -> tuple[Rows, Scores]:
    """Rankings without the query itself.

    Args:
        rows_QK: results, best first, one more than wanted.
        scores_QK: theirs.
        own_Q: from `own_rows`.
        depth: K, results wanted.

    Returns:
        Rows and scores, (Q, K), or fewer columns for a small pool.
    """
    if own_Q is None:
        return rows_QK[:, :depth], scores_QK[:, :depth]
    # Whoever has not found itself gives up its last result, so that all have as many.
    out_Q = np.where((rows_QK == own_Q[:, None]).any(axis=1), (rows_QK == own_Q[:, None]).argmax(axis=1), rows_QK.shape[1] - 1)
    keep_QK = np.arange(rows_QK.shape[1]) != out_Q[:, None]
    shape = len(rows_QK), rows_QK.shape[1] - 1
    return rows_QK[keep_QK].reshape(shape), scores_QK[keep_QK].reshape(shape)
