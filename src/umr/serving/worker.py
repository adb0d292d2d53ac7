"""One thread computes for all requests: rows that wait are put together into batches, whichever requests they belong to.

A batch holds rows of one model, within its token budget. Requests take turns, so a small one does not wait until a large one
is through; within a turn, rows of like length go together. A batch that is not full waits a few milliseconds, but only
while other requests are being prepared: a lone request is never held up. A row's result does not depend on its batch.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

import numpy as np

from umr.models.batching import WINDOW, Cost, pack
from umr.serving.errors import place

logger = logging.getLogger("umr.serving")


@dataclass(frozen=True, eq=False)
class Lane:
    """What computes the rows of one model.

    Attributes:
        name: of the model, for metrics.
        cost: a row's cost in tokens.
        forward: rows -> (rows, D).
        budget: tokens a batch.
    """

    name: str
    cost: Callable[[Any], Cost]
    forward: Callable[[list[Any]], np.ndarray]
    budget: int


@dataclass(frozen=True)
class Batch:
    """What was computed at once, for metrics."""

    model: str
    rows: int
    requests: int
    seconds: float


@dataclass(eq=False)
class _Request:
    lane: Lane
    costs: list[Cost]
    waiting: deque[tuple[int, Any]]
    out: list[np.ndarray | None]
    missing: int
    future: Future[np.ndarray]
    arrived: float = field(default_factory=time.monotonic)

    def finish(self, index: int, result: np.ndarray) -> None:
        self.out[index] = result
        self.missing -= 1
        if not self.missing:
            self._settle(lambda: self.future.set_result(np.stack([one for one in self.out if one is not None])))

    def fail(self, error: BaseException) -> None:
        self._settle(lambda: self.future.set_exception(error))

    def _settle(self, say: Callable[[], None]) -> None:
        try:
            say()
        except InvalidStateError:  # nobody waits any more: the client went away, or it took too long
            self.waiting.clear()


_Picked = list[tuple[_Request, int, Any]]


class ModelWorker:
    """The thread that computes.

    Args:
        wait_seconds: longest wait for rows that other requests are preparing.
        observe: called after every batch, in the thread.
    """

    def __init__(self, wait_seconds: float = 0.005, observe: Callable[[Batch], None] = lambda batch: None) -> None:
        self._wait_seconds, self._observe = wait_seconds, observe
        self._requests: deque[_Request] = deque()
        self._tokens: Counter[Lane] = Counter()
        self._preparing = 0
        self._closing = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="umr-model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether rows are still computed."""
        return self._thread.is_alive() and not self._closing

    def busy(self, lane: Lane) -> bool:
        """Whether more rows wait than a few batches take; whoever prepares more should wait, for prepared media are large."""
        return self._tokens[lane] > 2 * WINDOW * lane.budget

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """While rows are being prepared, batches that are not full wait for them."""
        with self._changed:
            self._preparing += 1
        try:
            yield
        finally:
            with self._changed:
                self._preparing -= 1
                self._changed.notify()

    def submit(self, lane: Lane, rows: Sequence[Any]) -> Future[np.ndarray]:
        """Have rows computed.

        Returns:
            A future of (rows, D), in the rows' order. Cancelling it drops the rows that were not computed yet.

        Raises:
            RuntimeError: the worker is closed.
        """
        future: Future[np.ndarray] = Future()
        costs = [lane.cost(row) for row in rows]
        request = _Request(lane, costs, deque(enumerate(rows)), [None] * len(rows), len(rows), future)
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is shutting down")
            self._requests.append(request)
            self._tokens[lane] += sum(map(sum, costs))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Compute what waits, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while picked := self._next():
                self._compute(picked)
        except BaseException as error:  # a mistake of ours: nobody may wait forever for a thread that is gone
            logger.critical("the model thread ended: %s", place(error))
            with self._changed:
                self._closing = True
                for request in self._requests:
                    request.fail(RuntimeError("the model thread ended"))
            raise

    def _next(self) -> _Picked:
        with self._changed:
            while True:
                self._drop_settled()
                if self._requests:
                    head = self._requests[0]
                    left = head.arrived + self._wait_seconds - time.monotonic()
                    full = self._tokens[head.lane] >= head.lane.budget
                    if full or not self._preparing or self._closing or left <= 0:
                        return self._pick()
                    self._changed.wait(left)
                elif self._closing:
                    return []
                else:
                    self._changed.wait()

    def _drop_settled(self) -> None:
        """Forget requests without waiting rows, and those that nobody waits for."""
        if not any(request.future.done() or not request.waiting for request in self._requests):
            return
        kept: deque[_Request] = deque()
        for request in self._requests:
            if request.future.done():
                self._tokens[request.lane] -= sum(sum(request.costs[index]) for index, _ in request.waiting)
                request.waiting.clear()
            elif request.waiting:
                kept.append(request)
        self._requests = kept

    def _pick(self) -> _Picked:
        """Rows for the next batch: one of the request whose turn it is, and those that go best with it."""
        head = self._requests[0]
        window = self._window(head.lane)
        lengths, extras = zip(*(request.costs[index] for request, index, _ in window), strict=True)
        chosen = next(batch for batch in pack(lengths, head.lane.budget, extras) if 0 in batch)
        picked = [window[place] for place in chosen]
        taken: dict[_Request, set[int]] = {}
        for request, index, _ in picked:
            taken.setdefault(request, set()).add(index)
            self._tokens[request.lane] -= sum(request.costs[index])
        for request, indices in taken.items():
            request.waiting = deque(one for one in request.waiting if one[0] not in indices)
        self._requests.rotate(-1)
        return picked

    def _window(self, lane: Lane) -> _Picked:
        """A few batches' worth of waiting rows of a lane, one of each request in turn."""
        turns = deque((request, iter(request.waiting)) for request in self._requests if request.lane is lane)
        window: _Picked = []
        tokens = 0
        while turns and (not window or tokens < WINDOW * lane.budget):
            request, rows = turns.popleft()
            if (row := next(rows, None)) is not None:
                window.append((request, *row))
                tokens += sum(request.costs[row[0]])
                turns.append((request, rows))
        return window

    def _compute(self, picked: _Picked) -> None:
        lane, started = picked[0][0].lane, time.monotonic()
        try:
            results = lane.forward([row for _, _, row in picked])
            if len(results) != len(picked) or np.isnan(results).any():
                raise ArithmeticError("the model gave too few values, or some that are no numbers")
        except Exception as error:
            if len(picked) == 1:
                logger.error("a row of %s failed: %s", lane.name, place(error))
                picked[0][0].fail(error)
                return
            half = len(picked) // 2  # one bad row, or too little memory: the neighbours shall not suffer
            self._compute(picked[:half])
            self._compute(picked[half:])
            return
        self._observe(Batch(lane.name, len(picked), len({id(request) for request, _, _ in picked}), time.monotonic() - started))
        for (request, index, _), result in zip(picked, results, strict=True):
            request.finish(index, result)
