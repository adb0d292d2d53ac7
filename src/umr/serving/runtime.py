"""From a request's items to results: preparing in a pool of threads, computing in the one model thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from umr.items import Item
from umr.serving.errors import RequestError
from umr.serving.worker import Batch, Lane, ModelWorker

Result = TypeVar("Result")

TEXTS_AT_ONCE = 32
"""Texts prepared in one call of a thread; media are prepared one by one, since one may take as long as hundreds of texts."""
WAITING = 16
"""Threads for what mostly waits: searches, and changes of collections."""
_PAUSE = 0.005
"""Seconds between two looks at whether the model thread has caught up."""

Prepare = Callable[[], list[Any]]


@dataclass(frozen=True)
class Computed:
    """Results of rows: `values_ND`, and the tokens that they took."""

    values_ND: np.ndarray
    tokens: int


class Runtime:
    """Threads that prepare, and the one that computes.

    Args:
        threads: that prepare.
        wait_seconds: longest wait of a batch for rows that are being prepared.
        observe: called after every batch, in the model thread.
    """

    def __init__(self, threads: int = 2, wait_seconds: float = 0.005, observe: Callable[[Batch], None] = lambda batch: None) -> None:
        self.worker = ModelWorker(wait_seconds, observe)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="umr-prepare")
        self._waiting = ThreadPoolExecutor(WAITING, thread_name_prefix="umr-wait")

    async def aside(self, work: Callable[[], Result]) -> Result:
        """Run something that takes long in the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def waiting(self, work: Callable[[], Result]) -> Result:
        """Run something that mostly waits, for a disk or for the model thread: those that prepare are not to wait with it."""
        return await asyncio.get_running_loop().run_in_executor(self._waiting, work)

    async def compute(self, lane: Lane, chunks: Iterable[Prepare]) -> Computed:
        """Prepare in the pool and compute; cancelling it drops what was not computed yet.

        Raises:
            RequestError: 503, the server is shutting down.
        """
        futures: list[Future[np.ndarray]] = []
        tokens = 0
        try:
            for prepare in chunks:
                while self.worker.busy(lane):
                    await asyncio.sleep(_PAUSE)
                with self.worker.preparing():
                    rows = await self.aside(prepare)
                    futures.append(self._submit(lane, rows))
                tokens += sum(lane.cost(row)[0] for row in rows)
            return Computed(np.concatenate([await asyncio.wrap_future(future) for future in futures]), tokens)
        finally:
            for future in futures:
                future.cancel()

    def compute_here(self, lane: Lane, chunks: Iterable[Prepare]) -> Computed:
        """The same, preparing in this thread and waiting in it; not for the thread of the event loop."""
        futures: list[Future[np.ndarray]] = []
        tokens = 0
        try:
            for prepare in chunks:
                while self.worker.busy(lane):
                    time.sleep(_PAUSE)
                with self.worker.preparing():
                    rows = prepare()
                    futures.append(self._submit(lane, rows))
                tokens += sum(lane.cost(row)[0] for row in rows)
            return Computed(np.concatenate([future.result() for future in futures]), tokens)
        finally:
            for future in futures:
                future.cancel()

    def _submit(self, lane: Lane, rows: list[Any]) -> Future[np.ndarray]:
        try:
            return self.worker.submit(lane, rows)
        except RuntimeError as error:
            raise RequestError(503, str(error), "shutting_down", retry_after=5) from error

    def close(self) -> None:
        """Finish what was begun, then end all threads."""
        self._waiting.shutdown(wait=True, cancel_futures=True)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.worker.close()


def chunks_of(items: Sequence[Item]) -> Iterator[slice]:
    """Slices to be prepared in one call: up to `TEXTS_AT_ONCE` items, of which the last alone may hold media."""
    start = 0
    for index, item in enumerate(items):
        if index + 1 - start == TEXTS_AT_ONCE or item.modality != "text" or index + 1 == len(items):
            yield slice(start, index + 1)
            start = index + 1
