"""The second scoring: candidates that the first one found, each pair of query and candidate on its own, in double precision.

It does not depend on blocks, threads or devices, and equal vectors get equal scores. A bound on what the first scoring can be wrong by says
whether a candidate that it left out could belong to the k best; only then is the stream read again for that query (`settle`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from umr.protocols import Vectors
from umr.store.asked import Among, Places, Some
from umr.store.best import Keys, Scores, hits, insert, keys_of, nothing, numbers_of, scores_of, worst
from umr.store.halves import ROUNDING, lost
from umr.store.passes import Shape
from umr.store.rows import Rows

Wide = npt.NDArray[np.float64]
_RANKED = 4096  # queries ordered at a time
_RELEASE_EVERY = 16


def score_pairs(queries_QD: Vectors, rows_P: Places, candidates_CD: Vectors, at_P: Places) -> Scores:
    """Inner products of pairs, each on its own. Shape (P,)."""
    return np.asarray((candidates_CD[at_P] * queries_QD[rows_P].astype(np.float64)).sum(axis=-1), np.float32)


@dataclass(frozen=True)
class Listed:
    """Lists of candidates of consecutive queries of a pass.

    Attributes:
        first: the first query.
        places_QM: candidates.
    """

    first: int
    places_QM: Some


def score_listed(queries_QD: Vectors, stream: Rows, lists: list[Listed], chunk: int) -> list[Scores]:
    """Score every candidate of every list, going through the stream once, in its order.

    Args:
        queries_QD: of the pass.
        stream: all candidates.
        lists: what was found.
        chunk: bytes to work on at a time.

    Returns:
        Scores of each list, (Q, M).
    """
    places_P = np.concatenate([one.places_QM.ravel() for one in lists])
    ends = np.cumsum([0] + [one.places_QM.size for one in lists])
    width = np.array([max(1, one.places_QM.shape[1]) for one in lists])
    first = np.array([one.first for one in lists])
    order_P = np.argsort(places_P, kind="stable")
    scores_P = np.empty(len(places_P), np.float32)
    step = max(1, chunk // (24 * queries_QD.shape[1]))
    for number, start in enumerate(range(0, len(order_P), step)):
        pairs = order_P[start : start + step]
        which = np.searchsorted(ends, pairs, side="right") - 1
        rows = first[which] + (pairs - ends[which]) // width[which]
        places, at = np.unique(places_P[pairs], return_inverse=True)
        scores_P[pairs] = score_pairs(queries_QD, rows, stream.take(places.astype(np.int64)), at)
        if number % _RELEASE_EVERY == 0:
            stream.release()
    stream.release()
    return [scores_P[ends[n] : ends[n + 1]].reshape(one.places_QM.shape) for n, one in enumerate(lists)]


def rank(places_QM: Some, scores_QM: Scores, among: Among, k: int) -> tuple[Places, Scores]:
    """The k best of each list, of equal scores the lower row of the pool first."""
    shape = len(places_QM), min(k, places_QM.shape[1])
    rows_QK, best_QK = np.empty(shape, np.int64), np.empty(shape, np.float32)
    for first in range(0, len(places_QM), _RANKED):
        some = slice(first, first + _RANKED)
        rows, scores = among.rows(places_QM[some]), scores_QM[some]
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        rows_QK[some], best_QK[some] = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    return rows_QK, best_QK


def slack(queries_QD: Vectors, longest: float, rounding: float = 0.0) -> Wide:
    """How far a product of the first scoring may be from the true one, for each query. Shape (Q, 1).

    D products and sums in any order are wrong by at most D u / (1 - D u) times |q| |c|, u = 2**-24 (Higham, "Accuracy and
    Stability of Numerical Algorithms", 3.1); twice u more is for rounding the result. Where vectors were rounded to bfloat16 before, q by a
    vector e and c by a vector f, |e| |c| + (|q| + |e|) |f| is added.

    Args:
        queries_QD: queries.
        longest: the largest length of a candidate, in single precision.
        rounding: the largest |f| of a candidate; 0 where nothing was rounded.
    """
    dimension, unit = queries_QD.shape[1], 2.0**-24
    length_Q1 = np.sqrt(np.einsum("qd,qd->q", queries_QD, queries_QD, dtype=np.float64))[:, None]
    lost_Q1 = lost(queries_QD)[:, None] if rounding else np.zeros_like(length_Q1)
    sums_Q1 = (dimension * unit / (1 - dimension * unit) + 2 * unit) * (length_Q1 + lost_Q1) * (longest + rounding)
    return np.asarray((sums_Q1 + lost_Q1 * longest + (length_Q1 + lost_Q1) * rounding) * (1 + 2 * dimension * unit))


def highest_left_out(floor_Q1: Scores, slack_Q1: Wide, rounding: float = 0.0) -> Wide:
    """The highest true score that something left out of a list can have. Shape (Q, 1).

    Args:
        floor_Q1: the lowest first score in each list; nothing left out had a higher one.
        slack_Q1: from `slack`.
        rounding: as there; then first scores are rounded to bfloat16, too.
    """
    coarse_Q1 = np.where(np.isfinite(floor_Q1), 1.01 * ROUNDING * np.abs(floor_Q1.astype(np.float64)), 0.0) if rounding else 0.0
    return np.asarray(floor_Q1.astype(np.float64) + slack_Q1 + coarse_Q1)


def unsettled(scores_QK: Scores, highest_Q1: Wide, k: int) -> Places:
    """Queries for which something that the first scoring left out could be among the k best.

    Args:
        scores_QK: the best, second scoring.
        highest_Q1: from `highest_left_out`.
        k: results wanted; with fewer of them, nothing was left out.
    """
    if scores_QK.shape[1] < k or not k:
        return np.empty(0, np.int64)
    return np.flatnonzero(scores_QK[:, k - 1].astype(np.float64) <= highest_Q1[:, 0])


def settle(
    queries_QD: Vectors, slack_Q1: Wide, scores_QK: Scores, blocks: Iterable[tuple[int, Vectors]], among: Among, shape: Shape
) -> tuple[Places, Scores]:
    """Search again for a few queries, scoring everything in double precision that can reach their k-th best score.

    Args:
        queries_QD: the queries.
        slack_Q1: theirs, in single precision.
        scores_QK: their best so far: what follows is at least as good.
        blocks: the stream, with the place where each block begins.
        among: the pool.
        shape: of the matrix products.
    """
    best_QK = nothing(*scores_QK.shape)
    least_Q1 = scores_QK[:, -1:].astype(np.float64) - slack_Q1
    step = max(1, shape.rescoring(queries_QD.shape[1]) // (24 * queries_QD.shape[1]))
    for start, block_BD in blocks:
        places_C, rows_C = among.part(start, start + len(block_BD))
        mine_CD = block_BD[places_C - np.uint32(start)]
        for group in range(0, len(queries_QD) if len(mine_CD) else 0, shape.group):
            some = slice(group, group + shape.group)
            asked_GD, best_GK = queries_QD[some], best_QK[some]
            reach = partial(_reach, best_GK, least_Q1[some], slack_Q1[some])
            for queries_H, columns_H in hits(asked_GD @ mine_CD.T, reach):
                for first in range(0, len(queries_H), step):
                    rows, columns = queries_H[first : first + step], columns_H[first : first + step]
                    insert(best_GK, rows, keys_of(score_pairs(asked_GD, rows, mine_CD, columns), rows_C[columns]))
    order_QK = np.argsort(-best_QK, axis=1)
    ordered_QK = np.take_along_axis(best_QK, order_QK, 1)
    return numbers_of(ordered_QK).astype(np.int64), scores_of(ordered_QK)


def _reach(best_QK: Keys, least_Q1: Wide, slack_Q1: Wide) -> Scores:
    """The lowest first score of what can be among the best."""
    return np.nextafter(np.maximum(least_Q1, worst(best_QK) - slack_Q1).astype(np.float32), np.float32(-np.inf))
