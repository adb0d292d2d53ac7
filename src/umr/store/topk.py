"""Exact search of one pool for one set of queries; `umr.store.streaming` searches many at once and says how."""

from __future__ import annotations

import numpy as np

from umr.progress import Bar
from umr.protocols import Vectors
from umr.store.asked import Among, Asked, Places
from umr.store.best import Scores
from umr.store.rows import ArrayRows, Rows
from umr.store.streaming import quickest


def exact_topk(
    queries_QD: Vectors, candidates: Rows, k: int, block: int | None = None, bar: Bar | None = None, memory: int | None = None
) -> tuple[Places, Scores]:
    """Find the `k` candidates with the largest inner product, best first; of equal scores the lower row comes first.

    Args:
        queries_QD: finite float32, shape (Q, D).
        candidates: N < 2**32 vectors of the same dimension.
        k: results a query; where there are fewer than k candidates, all of them are returned.
        block: candidates read at a time, at most, by default as many as is quick; changes memory use and speed only.
        bar: advanced by the number of candidates seen.
        memory: bytes that the search may take beside `queries_QD`; by default as much as one pass takes.

    Returns:
        Row numbers, int64, and scores, float32, both of shape (Q, min(k, N)).

    Raises:
        RecipeError: `memory` is too little.
    """
    asked = Asked(ArrayRows(np.ascontiguousarray(queries_QD, np.float32)), [Among.run(0, len(candidates))], k)
    ((ranking,),) = quickest(candidates, [asked], memory, block=block).run(bar)
    return ranking
