"""Reading units in threads ahead of the model, in order, within a bound on the pixels that wait."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from umr.search.readers.piece import Done, Event, Piece
from umr.search.units import Unit

WAITING_PIXELS = 128_000_000
"""Pixels of decoded pieces that wait for the model; three bytes each. One piece may exceed it alone."""
_PIECE = 10_000
"""What any event counts as at least, so that texts do not pile up either."""
_UNITS_PER_WORKER = 8


@contextmanager
def reading_ahead(units: Sequence[Unit], workers: int | None = None) -> Iterator[Iterator[Iterator[Event]]]:
    """The events of each unit, in the order of `units`; every inner iterator must be used up before the next is asked for.

    Args:
        units: what to read.
        workers: threads. Default: one less than there are cores, at least one, at most eight.
    """
    workers = workers or max(1, min(8, (os.cpu_count() or 2) - 1))
    desk = _Desk(units)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="umr-read")
    try:
        yield desk.streams(pool, workers * _UNITS_PER_WORKER)
    finally:
        desk.stop()
        pool.shutdown(cancel_futures=True)


class _Stopped(Exception):
    """Nobody wants the rest."""


class _Stream:
    """Events of one unit that wait to be taken."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.events: deque[Event] = deque()
        self.finished = False


class _Desk:
    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units
        self._change = threading.Condition()
        self._waiting = 0
        self._current: _Stream | None = None
        self._stopped = False

    def stop(self) -> None:
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def streams(self, pool: ThreadPoolExecutor, most: int) -> Iterator[Iterator[Event]]:
        begun: deque[_Stream] = deque()
        for number in range(len(self._units)):
            while len(begun) < most and number + len(begun) < len(self._units):
                begun.append(_Stream(self._units[number + len(begun)]))
                pool.submit(self._read, begun[-1])
            yield self._taken(begun.popleft())

    def _taken(self, stream: _Stream) -> Iterator[Event]:
        while True:
            with self._change:
                self._current = stream
                self._change.notify_all()
                # a timeout, since a wait without one cannot be interrupted from the keyboard everywhere
                while not stream.events and not stream.finished:
                    self._change.wait(1.0)
                if not stream.events:
                    return
                event = stream.events.popleft()
                self._waiting -= _cost(event)
                self._change.notify_all()
            yield event

    def _read(self, stream: _Stream) -> None:
        events = _safely(stream.unit)
        try:
            for event in events:
                self._put(stream, event)
        except _Stopped:
            events.close()  # type: ignore[attr-defined]  # a generator, which may have a process to end
        finally:
            with self._change:
                stream.finished = True
                self._change.notify_all()

    def _put(self, stream: _Stream, event: Event) -> None:
        cost = _cost(event)
        with self._change:
            while not self._stopped and self._waiting + cost > WAITING_PIXELS and self._waiting and not self._needed(stream):
                self._change.wait()
            if self._stopped:
                raise _Stopped
            stream.events.append(event)
            self._waiting += cost
            self._change.notify_all()

    def _needed(self, stream: _Stream) -> bool:
        """Whether the reader of the events can go on with nothing but this stream; then the bound does not hold it up."""
        return stream is self._current and not stream.events


def _cost(event: Event) -> int:
    return max(_PIECE, event.pixels) if isinstance(event, Piece) else _PIECE


def _safely(unit: Unit) -> Iterator[Event]:
    """The events of a unit; what its readers did not foresee rejects its files, and not the whole folder."""
    open_files = {file.path for file in unit.files}
    try:
        for event in unit.read():
            if isinstance(event, Done):
                open_files.discard(event.source)
            yield event
    except Exception as error:  # decoders of hostile files let many kinds through
        said = str(error).splitlines()[0][:200] if str(error) else ""
        for path in sorted(open_files):
            yield Done(path, "", f"cannot be read ({type(error).__name__}{': ' if said else ''}{said})")
