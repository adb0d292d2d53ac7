"""Who makes pieces: this process, several of this machine, or the workers of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from umr.bulk.job import Job, Team
from umr.bulk.local import devices, local_team
from umr.bulk.work import Load, Work, Worker
from umr.errors import RecipeError
from umr.progress import Bar
from umr.protocols import Encoder
from umr.store.pieces import Pieces
from umr.store.vectors import VectorStore


@dataclass(frozen=True)
class Crew:
    """How many workers, and where.

    The same bytes come out whoever works, as long as each computes with as many threads on the same kind of device.

    Attributes:
        workers: how many. Default: one, in this process; on Ray one for each GPU.
        ray: address of a Ray cluster, or `"local"`.
        threads: of each worker. Default: all cores shared by the workers.

    Raises:
        RecipeError: a number below one, or threads without workers.
    """

    workers: int | None = None
    ray: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if (given := getattr(self, name)) is not None and given < 1:
                raise RecipeError(f"{name} must be at least 1, not {given}")
        if self.alone and self.threads is not None:
            raise RecipeError("threads are of several workers, so the setting has no effect with one; set OMP_NUM_THREADS instead")

    @classmethod
    def of_every_gpu(cls) -> Crew:
        """A worker for each GPU of this machine; this process alone where there are fewer than two."""
        return cls(len(found)) if len(found := devices()) > 1 else cls()

    @property
    def alone(self) -> bool:
        """Whether this process does the work itself."""
        return self.ray is None and (self.workers or 1) == 1

    def load(self, load: Load) -> Encoder:
        """The model: for work in this process, or to know whose vectors others make, which the CPU is enough for."""
        return load(None if self.alone else "cpu")

    @contextmanager
    def team(self, job: Job, tasks: int) -> Iterator[Team]:
        """Workers for a job, which end with the block. Not for a crew that is `alone`, which needs none.

        Args:
            job: what to do.
            tasks: how many there are at most; more workers are of no use.

        Raises:
            RecipeError: no such Ray cluster.
        """
        if self.ray is not None:
            from umr.bulk.on_ray import ray_team

            with ray_team(job, self.ray, self.workers and max(1, min(self.workers, tasks)), self.threads) as actors:
                yield actors
        else:
            workers = max(1, min(self.workers or 1, tasks))
            with local_team(job, workers, self.threads or max(1, (os.cpu_count() or 1) // workers)) as processes:
                yield processes

    def fill(self, store: VectorStore, work: Work, encoder: Encoder, bar: Bar) -> None:
        """Make the pieces that `store` lacks; what is finished is in the store in any case, however this ends.

        Args:
            store: that of the work.
            work: what to do.
            encoder: what `load` gave.
            bar: advanced by the positions that are done, also by earlier calls.

        Raises:
            StoreError: another process is writing to the store, or it cannot be written.
            UmrError: what a worker met.
        """
        pieces = Pieces(store.path)
        with store.writing():
            pieces.commit(store)
            todo = [number for number in range(store.shards, work.pieces) if not pieces.has(number)]
            bar.advance(len(work.corpus.ids) - sum(stop - start for start, stop in map(work.range, todo)))
            try:
                if self.alone:
                    worker = Worker(work, encoder)
                    for number in todo:
                        bar.advance(worker(number))
                elif todo:
                    with self.team(work, len(todo)) as team:
                        for _, positions in team.map(todo):
                            bar.advance(positions)
            finally:
                pieces.commit(store)
