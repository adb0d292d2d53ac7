"""Which of the candidates that were found may be negatives: pure functions on arrays of one block of queries.

Q queries, W places a query. A place without a candidate has row -1. Every candidate ends with exactly one of `REASONS`; filters are
tried in the order of the codes below, the first that applies gives the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from umr.mining.queries import Ragged
from umr.mining.settings import MineSettings

REASONS = (
    "kept",
    "positive by id",
    "positive by qrels",
    "outside ranks",
    "too similar",
    "near the positive",
    "within margin",
    "positive by content",
    "reranker agrees",
    "not drawn",
)
(KEPT, BY_ID, BY_QRELS, OUTSIDE_RANKS, TOO_SIMILAR, NEAR_POSITIVE, WITHIN_MARGIN, BY_CONTENT, RERANKER_AGREES, NOT_DRAWN) = range(10)
OPEN, NONE = 254, 255
"""Codes of a candidate that nothing speaks against yet, and of a place without one."""

POOL_NAMES = {1: "local", 2: "global", 3: "both", 4: "run"}
LOCAL, GLOBAL, BOTH, RUN = POOL_NAMES

Codes: TypeAlias = npt.NDArray[np.uint8]
Check: TypeAlias = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Codes]
"""Given the queries and the places of P candidates, each one's code: `KEPT`, or a reason to drop it."""


@dataclass(frozen=True)
class Lists:
    """What was found for Q queries, each list in the order in which a negative is preferred: best rank first.

    Attributes:
        rows_QW: rows of the training pool, -1 where a list has ended.
        ranks_QW: rank from 1, the best one where a candidate was found in two pools.
        scores_QW: its score at that rank.
        pools_QW: codes of `POOL_NAMES`.
    """

    rows_QW: npt.NDArray[np.int64]
    ranks_QW: npt.NDArray[np.int32]
    scores_QW: npt.NDArray[np.float32]
    pools_QW: Codes

    @classmethod
    def ranked(cls, rows_QW: npt.NDArray[np.int64], scores_QW: npt.NDArray[np.float32], pool: int) -> Lists:
        """Rankings of one pool, best first."""
        ranks_QW = np.broadcast_to(np.arange(1, rows_QW.shape[1] + 1, dtype=np.int32), rows_QW.shape)
        return cls(rows_QW, ranks_QW, np.asarray(scores_QW, np.float32), np.full(rows_QW.shape, pool, np.uint8))


def merge(lists: Sequence[Lists]) -> Lists:
    """One list a query; a candidate of several lists counts once, with its best rank. Of equal ranks the higher score is first."""
    found = _joined(lists)
    found = _reordered(found, np.lexsort((-found.scores_QW, found.ranks_QW, found.rows_QW), axis=1))
    rows_QW, pools_QW = found.rows_QW, found.pools_QW
    for place in range(rows_QW.shape[1] - 1, 0, -1):  # from the right, so that the first of several equal ones gathers all pools
        again_Q = (rows_QW[:, place] == rows_QW[:, place - 1]) & (rows_QW[:, place] >= 0)
        pools_QW[again_Q, place - 1] |= pools_QW[again_Q, place]
        rows_QW[again_Q, place] = -1
    order_QW = np.lexsort((rows_QW, -found.scores_QW, found.ranks_QW, rows_QW < 0), axis=1)
    return _reordered(found, order_QW[:, : int((rows_QW >= 0).sum(axis=1).max(initial=0))])


def _joined(lists: Sequence[Lists]) -> Lists:
    return Lists(
        np.concatenate([one.rows_QW for one in lists], axis=1),
        np.concatenate([one.ranks_QW for one in lists], axis=1),
        np.concatenate([one.scores_QW for one in lists], axis=1),
        np.concatenate([one.pools_QW for one in lists], axis=1),
    )


def _reordered(lists: Lists, order_QW: npt.NDArray[np.int64]) -> Lists:
    return Lists(
        np.take_along_axis(lists.rows_QW, order_QW, 1),
        np.take_along_axis(lists.ranks_QW, order_QW, 1),
        np.take_along_axis(lists.scores_QW, order_QW, 1),
        np.take_along_axis(lists.pools_QW, order_QW, 1),
    )


def contains(lists: Ragged, rows_QW: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each row is in its query's list: (Q, W)."""
    span = np.int64(max(lists.rows.max(initial=0), rows_QW.max(initial=0)) + 1)
    wanted_QW = np.arange(len(rows_QW))[:, None] * span + rows_QW
    return np.isin(wanted_QW, lists.owners * span + lists.rows) & (rows_QW >= 0)


def judge(lists: Lists, positives: Ragged, judged: Ragged, positive_Q: npt.NDArray[np.float32], settings: MineSettings) -> Codes:
    """Apply every filter that needs no look at the candidate itself.

    The relative filter's limit is `s - (1 - max_relative) * |s|` for a positive with score s: that is `max_relative * s`
    where s is above zero, and below zero the same distance under s (`max_relative * s` would lie above the positive there). A query
    whose positive has no score is not filtered by it or by the margin.

    Args:
        lists: what was found.
        positives: right by the training lines.
        judged: right by judgements.
        positive_Q: best score of a positive, nan where none is known.
        settings: which filters are on.

    Returns:
        Codes, (Q, W): a reason, `OPEN`, or `NONE` where there is no candidate.
    """
    codes_QW = np.where(lists.rows_QW < 0, NONE, OPEN).astype(np.uint8)
    scores_QW, positive_Q1 = lists.scores_QW, positive_Q[:, None]

    def drop(applies_QW: npt.NDArray[np.bool_], reason: int) -> None:
        codes_QW[applies_QW & (codes_QW == OPEN)] = reason

    drop(contains(positives, lists.rows_QW), BY_ID)
    drop(contains(judged, lists.rows_QW), BY_QRELS)
    last = np.iinfo(np.int32).max if settings.max_rank is None else settings.max_rank
    drop((lists.ranks_QW < settings.min_rank) | (lists.ranks_QW > last), OUTSIDE_RANKS)
    if settings.max_similarity is not None:
        drop(scores_QW > np.float32(settings.max_similarity), TOO_SIMILAR)
    if settings.max_relative is not None:
        drop(scores_QW > positive_Q1 - np.float32(1 - settings.max_relative) * np.abs(positive_Q1), NEAR_POSITIVE)
    if settings.margin is not None:
        drop(scores_QW > positive_Q1 - np.float32(settings.margin), WITHIN_MARGIN)
    return codes_QW


def preference(rows_QW: npt.NDArray[np.int64], select: Literal["top", "random"], hashes_Q: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The order in which places are drawn, (Q, W): as they are, or by a hash of query and row."""
    if select == "top":
        return np.broadcast_to(np.arange(rows_QW.shape[1]), rows_QW.shape)
    return np.argsort(_mixed(hashes_Q[:, None] ^ _mixed(rows_QW.astype(np.uint64))), axis=1, kind="stable")


def choose(codes_QW: Codes, order_QW: npt.NDArray[np.int64], count: int, check: Check) -> Codes:
    """Take `count` open candidates a query, each only after `check` has looked at it; the rest is `NOT_DRAWN`.

    Checks read files or run a model, so they are asked about no more candidates than are needed, for all queries at once: a
    candidate that fails makes room for the next one in the following round.

    Args:
        codes_QW: from `judge`.
        order_QW: from `preference`.
        count: of negatives a query.
        check: decides about single candidates.

    Returns:
        Codes without `OPEN`.
    """
    ordered_QW = np.take_along_axis(codes_QW, order_QW, 1)
    while True:
        open_QW = ordered_QW == OPEN
        missing_Q = count - (ordered_QW == KEPT).sum(axis=1)
        queries_P, places_P = np.nonzero(open_QW & (np.cumsum(open_QW, axis=1) <= missing_Q[:, None]))
        if not len(queries_P):
            break
        ordered_QW[queries_P, places_P] = check(queries_P, order_QW[queries_P, places_P])
    ordered_QW[ordered_QW == OPEN] = NOT_DRAWN
    chosen_QW = np.empty_like(codes_QW)
    np.put_along_axis(chosen_QW, order_QW, ordered_QW, 1)
    return chosen_QW


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
