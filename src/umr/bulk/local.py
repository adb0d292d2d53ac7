"""Workers as processes of this machine. One that dies is replaced, and its task is done by another."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from umr.bulk.job import DEATHS, Job, set_threads
from umr.bulk.outcome import Outcome
from umr.errors import ModelError
from umr.processes import end_with_parent
from umr.progress import quiet

START = -1


@contextmanager
def local_team(job: Job, workers: int, threads: int) -> Iterator[LocalTeam]:
    """Processes that do a job, and end with the block.

    Args:
        job: what to do.
        workers: how many; GPUs are dealt out to them in turn.
        threads: that torch computes with in each.
    """
    team = LocalTeam(job, workers, threads)
    try:
        yield team
    finally:
        team.end()


class LocalTeam:
    """See `umr.bulk.job.Team`; made by `local_team`."""

    def __init__(self, job: Job, workers: int, threads: int) -> None:
        self._job, self._threads, self._devices = job, threads, devices()
        self._context = multiprocessing.get_context("spawn")
        self._seats: dict[Connection, _Seat] = {}
        self._deaths: Counter[int] = Counter()
        self._numbers = count()
        for place in range(workers):
            self._start(place)

    def map(self, tasks: Iterable[Any]) -> Generator[tuple[Any, Any]]:
        """Do tasks; see `Team.map`."""
        queue = _Queue(tasks, self._numbers)
        while True:
            while (idle := self._idle()) is not None and (numbered := queue.take()) is not None:
                self._give(idle, *numbered)
            if not queue.left and not any(seat.number not in (None, START) for seat in self._seats.values()):
                return
            for pipe in wait(list(self._seats)):
                assert isinstance(pipe, Connection)
                yield from self._hear(pipe, queue)

    def end(self) -> None:
        """Stop every worker, whatever it is at."""
        for pipe, seat in list(self._seats.items()):
            seat.process.kill()
            self._bury(pipe)

    def _start(self, place: int) -> None:
        here, there = self._context.Pipe()
        device = self._devices[place % len(self._devices)] if self._devices else None
        process = self._context.Process(target=_serve, args=(there, self._job, self._threads, device), daemon=True)
        process.start()
        there.close()  # else the end of the worker would not be seen
        self._seats[here] = _Seat(place, process)

    def _idle(self) -> Connection | None:
        return next((pipe for pipe, seat in self._seats.items() if seat.number is None), None)

    def _give(self, pipe: Connection, number: int, task: Any) -> None:
        seat = self._seats[pipe]
        seat.number, seat.task = number, task
        with suppress(OSError):  # it has just died, which the next look at its pipe shows
            pipe.send(task)

    def _hear(self, pipe: Connection, queue: _Queue) -> Iterator[tuple[Any, Any]]:
        """Take what a worker says: that it has begun, a result, or that it is dead."""
        seat = self._seats[pipe]
        try:
            outcome: Outcome = pipe.recv()
        except (EOFError, OSError):
            self._replace(pipe, queue)
            return
        value = outcome.checked()
        number, task = seat.number, seat.task
        seat.number = seat.task = None
        if number != START:
            yield task, value

    def _replace(self, pipe: Connection, queue: _Queue) -> None:
        seat = self._bury(pipe)
        if seat.number is not None:
            self._deaths[seat.number] += 1
            if self._deaths[seat.number] >= DEATHS:
                raise ModelError(self._obituary(seat))
            if seat.number != START:
                queue.put_back(seat.number, seat.task)
        self._start(seat.place)

    def _bury(self, pipe: Connection) -> _Seat:
        seat = self._seats.pop(pipe)
        pipe.close()
        seat.process.join()
        return seat

    def _obituary(self, seat: _Seat) -> str:
        code = seat.process.exitcode or 0
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        if seat.number == START:
            return f"{DEATHS} workers ended by {how} while they loaded the model; give it more memory, or take fewer workers"
        task = self._job.describe(seat.task)
        return f"{DEATHS} workers ended by {how} at {task}; give them more memory, take fewer, or look at the items"


@dataclass
class _Seat:
    """A worker: its place in the team, its process, and the number and the task that it is at; `START` at first, None when idle."""

    place: int
    process: BaseProcess
    number: int | None = START
    task: Any = None


class _Queue:
    """Tasks with a number each; those whose worker died come first."""

    def __init__(self, tasks: Iterable[Any], numbers: Iterator[int]) -> None:
        self._source, self._again = zip(numbers, tasks, strict=False), deque[tuple[int, Any]]()
        self._more = True

    @property
    def left(self) -> bool:
        """Whether there may be more."""
        return self._more or bool(self._again)

    def take(self) -> tuple[int, Any] | None:
        """The next one; None when there is none for now."""
        if self._again:
            return self._again.popleft()
        found = next(self._source, None)
        self._more = found is not None
        return found

    def put_back(self, number: int, task: Any) -> None:
        """Have it done again."""
        self._again.append((number, task))


def _serve(pipe: Connection, job: Job, threads: int, device: str | None) -> None:
    """A worker: takes tasks until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator's own interruption ends these
    end_with_parent()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # bars of several workers would be drawn over each other
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    set_threads(threads)
    with quiet(), suppress(EOFError, OSError):
        begun = Outcome.of(job.begin)
        pipe.send(Outcome() if not begun.failure else begun)
        while not begun.failure:
            pipe.send(Outcome.of(partial(begun.value, pipe.recv())))


def devices() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES gives them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
