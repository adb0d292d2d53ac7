"""Workers as actors of a Ray cluster. What they do is what local workers do.

Every machine of the cluster needs `umr`, the model and the data under the same paths, and a store on a file system that all of them share:
what goes over Ray is numbers of pieces, or pairs of items by their paths. Ray is an extra: `pip install umr[ray]`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from umr.bulk.job import DEATHS, Job, set_threads
from umr.bulk.outcome import Outcome
from umr.errors import ModelError, RecipeError
from umr.progress import quiet

LOCAL = "local"


@contextmanager
def ray_team(job: Job, address: str, workers: int | None, threads: int | None) -> Iterator[RayTeam]:
    """Actors that do a job, and end with the block.

    Args:
        job: what to do.
        address: of the cluster's head, as `ray.init` takes it, or `"local"` for a Ray of this machine alone that ends with the block.
        workers: actors. Default: as many as the cluster has GPUs, or without any one.
        threads: that torch computes with in each, and cores that each reserves. Default: the cluster's cores, shared evenly.

    Raises:
        RecipeError: Ray is not installed, the cluster cannot be reached, or it has too few cores.
    """
    with _cluster(address) as ray:
        share = share_of([node["Resources"] for node in ray.nodes() if node["Alive"]], workers, threads)
        # An actor that dies is started anew wherever there is room, and is asked again for what it owes.
        options = {"num_cpus": share.threads, "num_gpus": share.gpus, "max_restarts": -1, "max_task_retries": DEATHS - 1}
        actor = ray.remote(**options)(Actor)
        yield RayTeam(ray, job, [actor.remote(job, share.threads) for _ in range(share.workers)])


@dataclass(frozen=True)
class Share:
    """What is asked of the cluster: so many workers, each with so many cores and GPUs."""

    workers: int
    threads: int
    gpus: float


def share_of(nodes: Sequence[Mapping[str, float]], workers: int | None, threads: int | None) -> Share:
    """A share that the cluster can give: Ray would wait for ever for one that it cannot.

    Args:
        nodes: resources of each machine, `CPU` and `GPU` among them. Where any has GPUs, the others are not worked on.
        workers: as of `ray_team`.
        threads: likewise.

    Raises:
        RecipeError: too few cores.
    """
    hosts = [node for node in nodes if node.get("GPU")] or list(nodes)
    cores, gpus = [int(node.get("CPU", 0)) for node in hosts], sum(int(node.get("GPU", 0)) for node in hosts)
    workers = workers or gpus or 1
    if threads is None:
        threads = max(1, min(sum(cores) // workers, *cores))
    if sum(own // threads for own in cores) < workers:
        raise RecipeError(f"{workers} workers of {threads} threads do not fit into a Ray cluster of machines with {sorted(cores)} cores")
    return Share(workers, threads, min(1.0, gpus / workers))


class RayTeam:
    """See `umr.bulk.job.Team`; made by `ray_team`."""

    def __init__(self, ray: Any, job: Job, actors: list[Any]) -> None:
        self._ray, self._job, self._idle = ray, job, actors

    def map(self, tasks: Iterable[Any]) -> Generator[tuple[Any, Any]]:
        """Do tasks; see `Team.map`."""
        source, asked = iter(tasks), dict[Any, tuple[Any, Any]]()
        while True:
            while self._idle and (one := next(((task,) for task in source), None)) is not None:
                actor = self._idle.pop()
                asked[actor.do.remote(one[0])] = actor, one[0]
            if not asked:
                return
            for answer in self._ray.wait(list(asked))[0]:
                actor, task = asked.pop(answer)
                self._idle.append(actor)
                yield task, self._checked(answer, task)

    def _checked(self, answer: Any, task: Any) -> Any:
        try:
            outcome: Outcome = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            what = f"{DEATHS} workers of the Ray cluster ended at {self._job.describe(task)}"
            raise ModelError(f"{what} ({_first_line(error)}); give them more memory, or look at the items") from error
        return outcome.checked()


class Actor:
    """What runs on the cluster."""

    def __init__(self, job: Job, threads: int) -> None:
        set_threads(threads)
        # What goes wrong here is told with the first task: of an actor that cannot be made Ray says less.
        self._begun = Outcome.of(job.begin)

    def do(self, task: Any) -> Outcome:
        """Do a task."""
        if self._begun.failure:
            return self._begun
        with quiet():
            return Outcome.of(partial(self._begun.value, task))


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected, and disconnected in any case: actors would outlive this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise RecipeError("--ray needs Ray, which is not installed: pip install 'umr[ray]'") from error
    try:
        ray.init(address, include_dashboard=False if address == LOCAL else None, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises that, too
        raise RecipeError(f"--ray {address}: no cluster there ({_first_line(error)}); give the address of its head, or local") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
