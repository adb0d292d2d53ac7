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
from umr.mining.rules import LAST, Rules

REASONS = (
    "kept",
    "positive by id",
    "positive by qrels",
    "outside ranks",
    "wrong modality below the positive",
    "right modality ranked early",
    "modality without quota",
    "too similar",
    "near the positive",
    "within margin",
    "positive by content",
    "reranker agrees",
    "not drawn",
)
KEPT, BY_ID, BY_QRELS, OUTSIDE_RANKS, BELOW_POSITIVE, RANKED_EARLY, NO_QUOTA = range(7)
TOO_SIMILAR, NEAR_POSITIVE, WITHIN_MARGIN, BY_CONTENT, RERANKER_AGREES, NOT_DRAWN = range(7, 13)
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
        ranks_QW: rank from 1, the best one where a candidate was found in two pools; 0 for one that no search found.
        scores_QW: its score at that rank; nan where none is known.
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
    found = joined(lists)
    found = _reordered(found, np.lexsort((-found.scores_QW, found.ranks_QW, found.rows_QW), axis=1))
    rows_QW, pools_QW = found.rows_QW, found.pools_QW
    for place in range(rows_QW.shape[1] - 1, 0, -1):  # from the right, so that the first of several equal ones gathers all pools
        again_Q = (rows_QW[:, place] == rows_QW[:, place - 1]) & (rows_QW[:, place] >= 0)
        pools_QW[again_Q, place - 1] |= pools_QW[again_Q, place]
        rows_QW[again_Q, place] = -1
    order_QW = np.lexsort((rows_QW, -found.scores_QW, found.ranks_QW, rows_QW < 0), axis=1)
    return _reordered(found, order_QW[:, : int((rows_QW >= 0).sum(axis=1).max(initial=0))])


def joined(lists: Sequence[Lists]) -> Lists:
    """Lists side by side, as they are."""
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


def judge(
    lists: Lists, modalities_QW: Codes, positives: Ragged, judged: Ragged, positive_Q: npt.NDArray[np.float32], rules: Rules
) -> Codes:
    """Apply every filter that needs no look at the candidate itself.

    Modality-aware rules leave two sets open: C1, of a wrong modality and above the positive with the best rank of a query's positives
    (above the end of the list where none of them is in it), and C2, of the right modality and below `right_after_rank`.

    Args:
        lists: what was found.
        modalities_QW: codes of its modalities (`umr.mining.limits.MODALITIES`).
        positives: right by the training lines.
        judged: right by judgements.
        positive_Q: best score of a positive, nan where none is known.
        rules: which filters are on.

    Returns:
        Codes, (Q, W): a reason, `OPEN`, or `NONE` where there is no candidate.
    """
    codes_QW = np.where(lists.rows_QW < 0, NONE, OPEN).astype(np.uint8)
    by_id_QW, by_qrels_QW = contains(positives, lists.rows_QW), contains(judged, lists.rows_QW)
    _drop(codes_QW, by_id_QW, BY_ID)
    _drop(codes_QW, by_qrels_QW, BY_QRELS)
    _drop(codes_QW, (lists.ranks_QW < rules.min_rank) | (lists.ranks_QW > rules.max_rank), OUTSIDE_RANKS)
    if rules.target is not None:
        best_Q1 = np.where(by_id_QW | by_qrels_QW, lists.ranks_QW, LAST).min(axis=1, initial=LAST, keepdims=True)
        right_QW = modalities_QW == rules.target
        _drop(codes_QW, ~right_QW & (lists.ranks_QW > best_Q1), BELOW_POSITIVE)
        _drop(codes_QW, right_QW & (lists.ranks_QW <= rules.right_after_rank), RANKED_EARLY)
    _drop(codes_QW, ~rules.allowed_M[modalities_QW], NO_QUOTA)
    judge_scores(codes_QW, lists.scores_QW, modalities_QW, positive_Q[:, None], rules)
    return codes_QW


def judge_scores(codes: Codes, scores: npt.NDArray[np.float32], modalities: Codes, positive: npt.NDArray[np.float32], rules: Rules) -> None:
    """Apply the filters on scores to the codes that are `OPEN`, in place; arrays of shapes that go together.

    The relative filter's limit is `s - (1 - max_relative) * |s|` for a positive with score s: that is `max_relative * s`
    where s is above zero, and below zero the same distance under s (`max_relative * s` would lie above the positive there). A query
    whose positive has no score is not filtered by it or by the margin, and a candidate without a score by none.
    """
    _drop(codes, scores > rules.similarity_M[modalities], TOO_SIMILAR)
    _drop(codes, scores > positive - rules.below_M[modalities] * np.abs(positive), NEAR_POSITIVE)
    _drop(codes, scores > positive - rules.margin_M[modalities], WITHIN_MARGIN)


def _drop(codes: Codes, applies: npt.NDArray[np.bool_], reason: int) -> None:
    codes[applies & (codes == OPEN)] = reason


def preference(rows_QW: npt.NDArray[np.int64], select: Literal["top", "random"], hashes_Q: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The order in which places are drawn, (Q, W): as they are, or by a hash of query and row."""
    if select == "top":
        return np.broadcast_to(np.arange(rows_QW.shape[1]), rows_QW.shape)
    return np.argsort(mixed(hashes_Q[:, None] ^ mixed(rows_QW.astype(np.uint64))), axis=1, kind="stable")


def choose(codes_QW: Codes, order_QW: npt.NDArray[np.int64], count: int, check: Check) -> Codes:
    """Take `count` open candidates a query, each only after `check` has looked at it; the rest is `NOT_DRAWN`.

    Args:
        codes_QW: from `judge`.
        order_QW: from `preference`.
        count: of negatives a query.
        check: decides about single candidates.

    Returns:
        Codes without `OPEN`.
    """
    everyone_QW, count_Q = np.ones(codes_QW.shape, bool), np.full(len(codes_QW), count)
    return not_drawn(take(codes_QW, everyone_QW, order_QW, count_Q, check))


def take(
    codes_QW: Codes, among_QW: npt.NDArray[np.bool_], order_QW: npt.NDArray[np.int64], count_Q: npt.NDArray[np.int64], check: Check
) -> Codes:
    """Take up to `count_Q` more of the open candidates among some, each only after `check` has looked at it.

    Checks read files or run a model, so they are asked about no more candidates than are needed, for all queries at once: a
    candidate that fails makes room for the next one in the following round.

    Returns:
        The codes, in which what was looked at is no longer `OPEN`.
    """
    ordered_QW, among_QW = np.take_along_axis(codes_QW, order_QW, 1), np.take_along_axis(among_QW, order_QW, 1)
    missing_Q = count_Q.copy()
    while True:
        open_QW = (ordered_QW == OPEN) & among_QW
        queries_P, places_P = np.nonzero(open_QW & (np.cumsum(open_QW, axis=1) <= missing_Q[:, None]))
        if not len(queries_P):
            break
        found_P = check(queries_P, order_QW[queries_P, places_P])
        ordered_QW[queries_P, places_P] = found_P
        np.subtract.at(missing_Q, queries_P[found_P == KEPT], 1)
    taken_QW = np.empty_like(codes_QW)
    np.put_along_axis(taken_QW, order_QW, ordered_QW, 1)
    return taken_QW


def not_drawn(codes_QW: Codes) -> Codes:
    """The codes with `NOT_DRAWN` for `OPEN`."""
    return np.where(codes_QW == OPEN, NOT_DRAWN, codes_QW).astype(np.uint8)


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """64 bits from 64: the finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
