"""The filters on arrays: exact limits, merged lists, and drawing, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.mining import filters
from umr.mining.filters import (
    GLOBAL,
    KEPT,
    LOCAL,
    NONE,
    NOT_DRAWN,
    OPEN,
    POOL_NAMES,
    REASONS,
    Lists,
    choose,
    contains,
    judge,
    merge,
    preference,
)
from umr.mining.queries import Ragged, drawn, hashes
from umr.mining.rules import Rules
from umr.mining.settings import MineSettings


def ragged(*lists: list[int]) -> Ragged:
    return Ragged(np.array([row for one in lists for row in one], np.int64), np.cumsum([0, *map(len, lists)]).astype(np.int64))


def found(scores: list[float]) -> Lists:
    return Lists.ranked(np.arange(len(scores))[None], np.array([scores], np.float32), LOCAL)


def reasons(lists: Lists, positive: float = np.nan, right: list[int] = (), judged: list[int] = (), **on: object) -> list[str]:  # type: ignore[assignment]
    wanted = MineSettings(**{"max_similarity": None, **on})
    rules, modalities = Rules.of(wanted, "text", "text"), np.zeros(lists.rows_QW.shape, np.uint8)
    codes = judge(lists, modalities, ragged(list(right)), ragged(list(judged)), np.array([positive], np.float32), rules)
    return [REASONS[code] if code < len(REASONS) else {OPEN: "open", NONE: "none"}[code] for code in codes[0]]


def test_every_filter_gives_its_reason() -> None:
    lists = found([0.9, 0.8, 0.7, 0.6, 0.5, -1.0])
    assert reasons(lists, right=[1], judged=[1, 2]) == ["open", "positive by id", "positive by qrels", "open", "open", "open"]
    assert reasons(lists, max_similarity=0.7) == ["too similar", "too similar", *["open"] * 4]
    assert reasons(lists, positive=0.8, margin=0.1)[:3] == ["within margin", "within margin", "open"]
    assert reasons(lists, min_rank=2, max_rank=3, depth=5) == ["outside ranks", "open", "open", *["outside ranks"] * 3]
    assert reasons(lists, right=[0], max_similarity=0.1, min_rank=4)[0] == "positive by id"


@pytest.mark.parametrize(
    ("positive", "limit"),
    [(0.8, 0.76), (0.0, 0.0), (-0.4, -0.42)],  # 5 % of its size below the positive, on either side of zero
)
def test_the_relative_limit_lies_below_the_positive(positive: float, limit: float) -> None:
    lists = found([positive, limit + 1e-4, limit - 1e-4])
    wanted = ["near the positive", "near the positive", "open"] if positive else ["open", "near the positive", "open"]
    assert reasons(lists, positive=positive, max_relative=0.95) == wanted


def test_without_a_positive_score_only_absolute_filters_apply() -> None:
    lists = found([0.9, 0.5])
    assert reasons(lists, max_relative=0.95, margin=0.1) == ["open", "open"]
    assert reasons(lists, max_relative=0.95, max_similarity=0.7) == ["too similar", "open"]


ranking = st.lists(st.integers(0, 15), max_size=10, unique=True)


@given(st.lists(st.tuples(ranking, ranking), min_size=1, max_size=4))
def test_merging_keeps_each_candidate_once_with_its_best_rank(pairs: list[tuple[list[int], list[int]]]) -> None:
    lists = []
    for side, pool in ((0, LOCAL), (1, GLOBAL)):
        width = max(len(pair[side]) for pair in pairs)
        rows_QW = np.array([pair[side] + [-1] * (width - len(pair[side])) for pair in pairs], np.int64).reshape(len(pairs), width)
        lists.append(Lists.ranked(rows_QW, -rows_QW.astype(np.float32), pool))
    both = merge(lists)
    for query, (local, everything) in enumerate(pairs):
        rank = {row: min([*(one.index(row) + 1 for one in (local, everything) if row in one)]) for row in {*local, *everything}}
        expected = sorted(rank, key=lambda row: (rank[row], row))
        there = both.rows_QW[query] >= 0
        assert both.rows_QW[query][there].tolist() == expected and there[: len(expected)].all()
        assert both.ranks_QW[query][there].tolist() == [rank[row] for row in expected]
        names = [POOL_NAMES[code] for code in both.pools_QW[query][there].tolist()]
        assert names == ["both" if row in local and row in everything else "local" if row in local else "global" for row in expected]


@given(st.lists(st.tuples(ranking, ranking), min_size=1, max_size=4))
def test_contains_is_membership_of_the_query_s_own_list(pairs: list[tuple[list[int], list[int]]]) -> None:
    rows_QW = np.array([row + [-1] * (10 - len(row)) for row, _ in pairs], np.int64)
    expected = [[row in right for row in rows] for rows, (_, right) in zip(rows_QW.tolist(), pairs, strict=True)]
    assert contains(ragged(*(right for _, right in pairs)), rows_QW).tolist() == expected


codes = st.lists(st.sampled_from([OPEN, OPEN, NONE, 1, 4]), min_size=6, max_size=6)


@given(st.lists(codes, min_size=1, max_size=4), st.integers(1, 5), st.sampled_from(["top", "random"]), st.sets(st.integers(0, 5)))
def test_choosing_is_a_walk_that_skips_what_fails(table: list[list[int]], count: int, select: str, bad: set[int]) -> None:
    codes_QW = np.array(table, np.uint8)
    rows_QW = np.broadcast_to(np.arange(6), codes_QW.shape)
    order_QW = preference(rows_QW, select, hashes([f"q{number}" for number in range(len(table))], 1))  # type: ignore[arg-type]
    asked: list[tuple[int, int]] = []

    def check(queries_P: np.ndarray, places_P: np.ndarray) -> np.ndarray:
        asked.extend(zip(queries_P.tolist(), places_P.tolist(), strict=True))
        return np.array([filters.BY_CONTENT if place in bad else KEPT for place in places_P], np.uint8)

    chosen = choose(codes_QW, order_QW, count, check)
    for query, row in enumerate(table):
        expected, kept, seen = list(row), 0, 0
        for place in order_QW[query]:
            if row[place] == OPEN:
                good = kept < count and place not in bad
                expected[place] = NOT_DRAWN if kept == count else KEPT if good else filters.BY_CONTENT
                seen += kept < count
                kept += good
        assert chosen[query].tolist() == expected
        assert sum(one == query for one, _ in asked) == seen  # nothing is looked at that need not be
    assert len(set(asked)) == len(asked)


def test_the_draw_depends_on_query_and_seed_and_is_even() -> None:
    rows_QW = np.broadcast_to(np.arange(20), (400, 20))
    qids = [f"1:{number}" for number in range(400)]
    order_QW = preference(rows_QW, "random", hashes(qids, 0))
    assert (preference(rows_QW, "random", hashes(qids, 0)) == order_QW).all()
    assert (preference(rows_QW, "random", hashes(qids, 1)) != order_QW).any()
    counts = np.bincount(order_QW[:, 0], minlength=20)
    assert counts.sum() == 400 and counts.min() > 5 and counts.max() < 45  # 20 expected, standard deviation 4.4


def test_a_share_of_the_queries_is_the_same_in_any_order() -> None:
    qids = [f"1:{number}" for number in range(50)]
    some = {qids[place] for place in drawn(qids, 0.3, 42)}
    assert len(some) == 15 and some == {qids[::-1][place] for place in drawn(qids[::-1], 0.3, 42)}
    assert some != {qids[place] for place in drawn(qids, 0.3, 43)}
    assert len(drawn(qids, 0.001, 1)) == 1 and len(drawn(qids, 1.0, 1)) == 50
