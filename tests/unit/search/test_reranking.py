"""Reranking within a time budget, by a clock that the test winds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from umr.errors import MediaError
from umr.items import Item
from umr.rendering.pairs import Pair
from umr.search.reranking import FIRST_CALL, Reranked, rerank

QUERY = Item.of(text="query")
IDS = [f"{number:02}" for number in range(40)]


class Slow:
    """Says id / 100, and takes some seconds a pair."""

    fingerprint = "slow"

    def __init__(self, seconds: float) -> None:
        self.seconds, self.time, self.calls = seconds, 0.0, []

    def score_pairs(self, pairs: Sequence[Pair]) -> np.ndarray:
        self.calls.append(len(pairs))
        self.time += self.seconds * len(pairs)
        return np.array([int(str(pair.candidate.id)) / 100 for pair in pairs], np.float32)

    def run(self, budget: float | None, ids: Sequence[str] = IDS) -> Reranked:
        return rerank(self, QUERY, None, ids, lambda id: Item.of(text=id, id=id), budget, lambda: self.time)


def test_without_a_budget_everything_in_one_call():
    slow = Slow(1.0)
    found = slow.run(None)
    assert slow.calls == [40] and found.reached == 40 and found.notes == []
    assert found.yes == {id: pytest.approx(int(id) / 100) for id in IDS}


@pytest.mark.parametrize(("seconds", "budget"), [(1.0, 12.0), (0.1, 1.0), (0.01, 0.3), (3.0, 30.0)])
def test_as_many_as_fit_best_first(seconds: float, budget: float):
    slow = Slow(seconds)
    found = slow.run(budget)
    assert slow.time <= budget
    assert FIRST_CALL < found.reached < 40 and found.reached >= 0.6 * budget / seconds
    assert list(found.yes) == IDS[: found.reached]
    assert found.notes == [f"reranked {found.reached} of 40 within {budget:g} s"]


def test_a_budget_that_is_too_small_still_reranks_a_few():
    slow = Slow(100.0)
    assert slow.run(0.5).reached == FIRST_CALL and slow.calls == [FIRST_CALL]


def test_a_budget_that_is_large_enough_leaves_no_note():
    slow = Slow(0.001)
    found = slow.run(60.0)
    assert found.reached == 40 and found.notes == []
    assert slow.calls == [4, 8, 24, 4]  # never more than twice as many as so far


def test_no_results():
    assert Slow(1.0).run(None, []).yes == {}


def test_items_that_cannot_be_opened_are_passed_over():
    slow = Slow(0.0)

    def open_item(id: str) -> Item:
        if int(id) % 3 == 0:
            raise MediaError("is gone")
        return Item.of(text=id, id=id)

    found = rerank(slow, QUERY, None, IDS[:7], open_item)
    assert list(found.yes) == ["01", "02", "04", "05"] and found.reached == 7
    assert found.notes == [f"{id}: not reranked, is gone" for id in ("00", "03", "06")]
    assert rerank(slow, QUERY, None, ["00"], open_item).yes == {}


def test_a_pair_that_cannot_be_read_costs_itself_only():
    class Picky(Slow):
        def score_pairs(self, pairs: Sequence[Pair]) -> np.ndarray:
            if any(pair.candidate.id == "05" for pair in pairs):
                raise MediaError("05 is truncated")
            return super().score_pairs(pairs)

    picky = Picky(0.0)
    found = picky.run(None, IDS[:8])
    assert list(found.yes) == [id for id in IDS[:8] if id != "05"]
    assert found.notes == ["05: not reranked, 05 is truncated"]
