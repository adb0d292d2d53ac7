"""Live progress of long work, on stderr.

On a terminal it is a bar with rate and time left; elsewhere (a log file, a build server) it is a plain line at most
every ten seconds and one at the end.

Example:
    >>> with quiet():
    ...     sum(track([1, 2, 3], "adding"))
    6
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0

_lock = threading.RLock()
_quiet_depth = 0
_live: Progress | None = None  # the one bar display of the process: nested bars become further rows of it


class Bar(Protocol):
    """What `progress` yields."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done. May be called from any thread."""
        ...


def track(iterable: Iterable[T], label: str, total: int | None = None, unit: str = "items") -> Iterator[T]:
    """Yield from `iterable`, reporting each element once the caller has come back for the next.

    Args:
        iterable: what to go through.
        label: what is being done, such as `"embedding candidates"`.
        total: number of elements; default `len(iterable)` where it has one, else unknown.
        unit: what an element is called.
    """
    if total is None:
        try:
            total = len(iterable)  # type: ignore[arg-type]
        except TypeError:
            total = None
    with progress(label, total, unit) as bar:
        for element in iterable:
            yield element
            bar.advance()


@contextmanager
def progress(label: str, total: int | None = None, unit: str = "items") -> Iterator[Bar]:
    """Report a piece of work whose steps the caller counts with `bar.advance(n)`.

    Args:
        label: what is being done.
        total: number of units in all; `None` when unknown.
        unit: what is counted.
    """
    if _quiet_depth:
        yield _Silent()
    elif sys.stderr.isatty():
        with _rich_bar(label, total, unit) as bar:
            yield bar
    else:
        lines = _Lines(label, total, unit, sys.stderr)
        try:
            yield lines
        except BaseException:
            lines.finish("stopped at")
            raise
        lines.finish("done,")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence every `track` and `progress` begun inside, in all threads."""
    global _quiet_depth
    with _lock:
        _quiet_depth += 1
    try:
        yield
    finally:
        with _lock:
            _quiet_depth -= 1


class _Silent:
    def advance(self, n: int = 1) -> None:
        pass


class _Lines:
    """Plain lines: `label: 1200/5000 items, 310/s, 12 s left`."""

    def __init__(self, label: str, total: int | None, unit: str, out: TextIO) -> None:
        self.label, self.total, self.unit, self.out = label, total, unit, out
        self.done = 0
        self.start = self.last = time.monotonic()

    def advance(self, n: int = 1) -> None:
        with _lock:
            self.done += n
            now = time.monotonic()
            if now - self.last < SECONDS_BETWEEN_LINES:
                return
            self.last = now
            rate = self.done / (now - self.start)
            line = f"{self.label}: {self._count()}, {_short(rate)}/s"
            if self.total and rate > 0 and self.done <= self.total:
                line += f", {_duration((self.total - self.done) / rate)} left"
            self._write(line)

    def finish(self, how: str) -> None:
        seconds = time.monotonic() - self.start
        rate = f", {_short(self.done / seconds)}/s" if seconds > 0 and self.done else ""
        self._write(f"{self.label}: {how} {self._count()} in {_duration(seconds)}{rate}")

    def _count(self) -> str:
        return f"{self.done}/{self.total} {self.unit}" if self.total is not None else f"{self.done} {self.unit}"

    def _write(self, line: str) -> None:
        self.out.write(line + "\n")
        self.out.flush()


class _RichBar:
    def __init__(self, display: Progress, task: TaskID) -> None:
        self.display, self.task = display, task

    def advance(self, n: int = 1) -> None:
        self.display.advance(self.task, n)


@contextmanager
def _rich_bar(label: str, total: int | None, unit: str) -> Iterator[Bar]:
    global _live
    with _lock:
        owner = _live is None
        if _live is None:
            _live = _new_display()
            _live.start()
        display = _live
        task = display.add_task(label, total=total, unit=unit)
    try:
        yield _RichBar(display, task)
    finally:
        with _lock:
            if owner:
                _live = None
                display.stop()
            else:
                display.remove_task(task)  # a finished inner bar would crowd the outer one


def _new_display() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{_short(speed)} {task.fields['unit']}/s" if speed else f"- {task.fields['unit']}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def _short(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
