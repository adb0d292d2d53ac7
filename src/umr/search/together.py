"""Jobs of one search that go on at the same time, each on a processor of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

FEW = 4
"""Queries below which a search shares its jobs among threads, and keeps faiss and torch from doing so."""


@dataclass(frozen=True)
class Work(Generic[Result]):
    """Jobs, and what makes one result of theirs.

    Attributes:
        jobs: let go of the interpreter for most of their time. They must not wait for other jobs.
        join: is given their results in order, in the thread that asked.
    """

    jobs: Sequence[Callable[[], Any]]
    join: Callable[[list[Any]], Result]


def done(works: Sequence[Work[Result]], apart: bool) -> list[Result]:
    """The results of all works.

    Args:
        works: their jobs are started in order.
        apart: in threads of their own; else one after the other in this one.
    """
    found = iter(run([job for work in works for job in work.jobs], apart))
    return [work.join([next(found) for _ in work.jobs]) for work in works]


def run(jobs: Sequence[Callable[[], Any]], apart: bool) -> list[Any]:
    """Results of jobs in order; a single one stays in this thread."""
    if not apart or len(jobs) == 1 or threads() == 1:
        return [job() for job in jobs]
    return list(_pool().map(lambda job: job(), jobs))


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="umr-search")
