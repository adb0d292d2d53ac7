"""The model thread with a model of three lines: what goes into a batch, who waits for whom, and what a bad row does to its neighbours."""

import threading
import time
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.serving.worker import Batch, Lane, ModelWorker

BUDGET = 100


class Model:
    """Rows are numbers; their cost is the number, their result its double. It computes when it is let."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[list[float]] = []
        self.free = threading.Event()
        self.started = threading.Event()
        if not held:
            self.free.set()
        self.lane = Lane("double", lambda row: (int(abs(row)), 0), self.forward, BUDGET)

    def forward(self, rows: list[float]) -> np.ndarray:
        self.started.set()
        assert self.free.wait(10)
        self.batches.append(rows)
        if any(row < 0 for row in rows):
            raise ValueError("a row below zero")
        return np.array(rows, np.float32)[:, None] * 2


def close(worker: ModelWorker, *models: Model) -> None:
    for model in models:
        model.free.set()
    worker.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=12), min_size=1, max_size=8))
def test_every_row_is_computed_once_within_the_budget_and_in_order(requests: list[list[int]]):
    model, seen = Model(held=True), []
    worker = ModelWorker(observe=seen.append)
    futures = [worker.submit(model.lane, rows) for rows in requests]
    close(worker, model)
    for rows, future in zip(requests, futures, strict=True):
        assert future.result()[:, 0].tolist() == [2.0 * row for row in rows]
    assert sorted(row for batch in model.batches for row in batch) == sorted(row for rows in requests for row in rows)
    assert all(len(batch) * max(batch) <= BUDGET or len(batch) == 1 for batch in model.batches)
    assert [batch.rows for batch in seen] == [len(batch) for batch in model.batches]


def test_rows_of_several_requests_share_a_batch():
    model, seen = Model(held=True), []
    worker = ModelWorker(observe=seen.append)
    worker.submit(model.lane, [1])
    assert model.started.wait(10)
    for _ in range(5):
        worker.submit(model.lane, [10])
    close(worker, model)
    assert seen[1:] == [Batch("double", 5, 5, seen[1].seconds)]


def test_a_small_request_does_not_wait_for_a_large_one():
    model = Model(held=True)
    worker = ModelWorker()
    large = worker.submit(model.lane, [50] * 20)
    assert model.started.wait(10)
    small = worker.submit(model.lane, [3])
    close(worker, model)
    assert large.result().shape == (20, 1)
    assert small.result().tolist() == [[6.0]]
    assert [3 in batch for batch in model.batches].index(True) <= 2


def test_lanes_take_turns_and_are_never_mixed():
    one, other = Model(held=True), Model()
    worker = ModelWorker()
    first = worker.submit(one.lane, [60] * 5)
    assert one.started.wait(10)
    second = worker.submit(other.lane, [7] * 3)
    close(worker, one, other)
    assert first.result().shape == (5, 1)
    assert second.result()[:, 0].tolist() == [14.0] * 3
    assert other.batches == [[7, 7, 7]]


def test_a_bad_row_fails_its_own_request_alone():
    model = Model(held=True)
    worker = ModelWorker()
    worker.submit(model.lane, [1])
    assert model.started.wait(10)
    good, bad, also_good = (worker.submit(model.lane, rows) for rows in ([2, 3], [4, -5], [6]))
    close(worker, model)
    assert good.result()[:, 0].tolist() == [4.0, 6.0]
    assert also_good.result().tolist() == [[12.0]]
    with pytest.raises(ValueError, match="below zero"):
        bad.result()


def test_what_is_no_number_is_an_error_of_its_row():
    lane = Lane("broken", lambda row: (1, 0), lambda rows: np.array([[np.nan if row == 2 else row] for row in rows]), BUDGET)
    worker = ModelWorker()
    with worker.preparing():
        good, bad = worker.submit(lane, [1]), worker.submit(lane, [2])
    worker.close()
    assert good.result().tolist() == [[1.0]]
    with pytest.raises(ArithmeticError, match="no numbers"):
        bad.result()
    with pytest.raises(ArithmeticError, match="too few"):
        short = ModelWorker()
        future = short.submit(Lane("short", lambda row: (1, 0), lambda rows: np.zeros((0, 1)), BUDGET), [1])
        short.close()
        future.result()


def test_what_nobody_waits_for_is_not_computed():
    model = Model(held=True)
    worker = ModelWorker()
    worker.submit(model.lane, [1])
    assert model.started.wait(10)
    dropped, kept = worker.submit(model.lane, [11, 12]), worker.submit(model.lane, [13])
    assert dropped.cancel()
    close(worker, model)
    assert kept.result().tolist() == [[26.0]]
    assert sorted(row for batch in model.batches for row in batch) == [1, 13]
    with pytest.raises(CancelledError):
        dropped.result()


def test_a_request_cancelled_while_it_is_computed_harms_nobody():
    model = Model(held=True)
    worker = ModelWorker()
    running = worker.submit(model.lane, [1])
    assert model.started.wait(10)
    assert running.cancel()
    later = worker.submit(model.lane, [2])
    close(worker, model)
    assert later.result().tolist() == [[4.0]]


def test_a_batch_waits_for_what_is_being_prepared_and_only_then():
    model = Model()
    worker = ModelWorker(wait_seconds=5)
    started = time.monotonic()
    worker.submit(model.lane, [1]).result(10)
    assert time.monotonic() - started < 2, "a lone request was held up"
    with worker.preparing():
        first = worker.submit(model.lane, [1])
        time.sleep(0.05)
        assert not first.done()
        second = worker.submit(model.lane, [2])
    assert first.result(10).tolist() == [[2.0]]
    assert second.result(10).tolist() == [[4.0]]
    assert model.batches[1] == [2, 1]
    with worker.preparing():
        full = worker.submit(model.lane, [50, 50])
        assert full.result(10).shape == (2, 1), "a full batch need not wait"
    worker.close()


def test_a_closed_worker_finishes_and_takes_nothing_new():
    model = Model(held=True)
    worker = ModelWorker()
    pending: list[Future] = [worker.submit(model.lane, [number]) for number in (1, 2, 3)]
    threading.Timer(0.05, model.free.set).start()
    worker.close()
    assert [future.result()[0, 0] for future in pending] == [2, 4, 6]
    assert not worker.alive
    with pytest.raises(RuntimeError, match="shutting down"):
        worker.submit(model.lane, [1])
