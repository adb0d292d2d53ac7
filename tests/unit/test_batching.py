import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.models import batching
from umr.models.batching import encode_stream, pack

costs_lists = st.lists(st.integers(0, 500), max_size=80)


@given(costs=costs_lists, budget=st.integers(1, 2000), data=st.data())
def test_pack_takes_every_row_once_within_the_budget(costs: list[int], budget: int, data: st.DataObject):
    extras = data.draw(st.none() | st.lists(st.integers(0, 300), min_size=len(costs), max_size=len(costs)))
    batches = pack(costs, budget, extras)
    assert sorted(index for batch in batches for index in batch) == list(range(len(costs)))
    for batch in batches:
        assert batch
        extra = sum(extras[index] for index in batch) if extras else 0
        assert len(batch) == 1 or len(batch) * max(costs[index] for index in batch) + extra <= budget
    assert batches == pack(list(costs), budget, extras)
    longest = [costs[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True), "the batch that needs most memory comes first"


@given(costs=costs_lists, budget=st.integers(1, 2000))
def test_pack_leaves_no_room_for_the_next_row(costs: list[int], budget: int):
    batches = pack(costs, budget)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * max(costs[batch[0]], 1) > budget


def test_pack_keeps_the_order_of_equal_rows():
    assert pack([5, 5, 5, 5, 5], 10) == [[0, 1], [2, 3], [4]]
    assert pack([1, 9, 3], 9) == [[1], [2, 0]]
    assert pack([], 10) == []
    assert pack([3, 3, 3], 12, [0, 6, 0]) == [[0, 1], [2]]


def run(values: list[int], budget: int, calls: list[list[int]] | None = None) -> np.ndarray:
    def forward(rows: list[int]) -> np.ndarray:
        if calls is not None:
            calls.append(rows)
        return np.array([[row, -row] for row in rows], np.float32)

    return encode_stream(len(values), lambda start, stop: values[start:stop], lambda row: (row, 0), forward, budget)


@given(values=st.lists(st.integers(1, 300), min_size=1, max_size=200), budget=st.integers(1, 3000))
def test_vectors_come_back_in_input_order(values: list[int], budget: int):
    out = run(values, budget)
    assert out.dtype == np.float32 and np.array_equal(out[:, 0], values) and np.array_equal(out[:, 1], -np.array(values))


def test_batches_are_made_of_rows_of_like_length_and_always_the_same():
    values = [1, 100] * 50
    first, second = [], []
    run(values, 400, first)
    run(values, 400, second)
    assert first == second
    assert all(len(batch) * max(batch) <= 400 for batch in first)
    assert sum(len(set(batch)) > 1 for batch in first) <= 1, "long and short rows hardly ever meet"


def test_preparing_runs_ahead_in_another_thread_but_not_far(monkeypatch: pytest.MonkeyPatch):
    started: list[int] = []
    reached = threading.Event()
    here = threading.get_ident()

    def prepare(start: int, stop: int) -> list[int]:
        assert threading.get_ident() != here
        started.append(start)
        if len(started) == 2:
            reached.set()
        return [10] * (stop - start)

    farthest = []

    def forward(rows: list[int]) -> np.ndarray:
        assert threading.get_ident() == here
        assert reached.wait(10), "the next rows are prepared while these are computed"
        farthest.append(len(started))
        return np.zeros((len(rows), 1), np.float32)

    count = batching.PREPARE * 40
    monkeypatch.setattr(batching, "SMALLEST_WINDOW", 0)
    encode_stream(count, prepare, lambda row: (row, 0), forward, batching.PREPARE * 10 // batching.WINDOW)
    assert len(started) == 40 and farthest[0] <= 7, "prepared rows are held in bounded number"


@pytest.mark.parametrize("where", ["prepare", "forward"])
def test_an_error_reaches_the_caller_and_ends_the_work(where: str):
    prepared: list[int] = []

    def prepare(start: int, stop: int) -> list[int]:
        prepared.append(start)
        if where == "prepare" and start:
            raise ValueError("broken image")
        return [1000] * (stop - start)

    def forward(rows: list[int]) -> np.ndarray:
        if where == "forward":
            raise ValueError("broken image")
        return np.zeros((len(rows), 1), np.float32)

    with pytest.raises(ValueError, match="broken image"):
        encode_stream(10_000, prepare, lambda row: (row, 0), forward, 8)
    assert len(prepared) < 50
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor") and thread.is_alive()]
