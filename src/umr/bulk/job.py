"""What is asked of whatever is to be done by several workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

DEATHS = 3
"""Workers that one task, or starting, may cost before all stops."""


class Job(Protocol):
    """Tasks of one kind. Is sent to every worker once, and its tasks and results between them and the coordinator."""

    def begin(self) -> Callable[[Any], Any]:
        """In a worker: load what is needed, and return what does a task."""
        ...

    def describe(self, task: Any) -> str:
        """A task in a message about workers that it killed: `items 'a' to 'b'`."""
        ...


class Team(Protocol):
    """Workers that have begun a job."""

    def map(self, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Do tasks, each by any worker, and yield each with its result, in the order in which they are done.

        A task whose worker dies is done again by another.

        Raises:
            UmrError: what a worker met; `ModelError` for a task, or a start, that has cost `DEATHS` workers.
        """
        ...


def set_threads(threads: int) -> None:
    """How many threads torch, and what it calls, compute with in this process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when they begin
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
