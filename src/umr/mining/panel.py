"""A reranker in several workers: what each of them does, as a `umr.bulk.job.Job`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from umr.errors import ModelError
from umr.rendering.pairs import Pair

if TYPE_CHECKING:
    from umr.bulk.job import Team
    from umr.mining.fill import PairScorer

Key: TypeAlias = tuple[int, int]
"""What a group of pairs is known by: its shard, and its place there."""
Task: TypeAlias = tuple[Key, list[Pair]]
"""What is to be scored in one call."""
Scores: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RerankerFolder:
    """A reranker as `Reranker.load` takes it."""

    path: str
    template: str | None
    dtype: str
    batch_tokens: int | None

    def __call__(self, device: str | None = None) -> PairScorer:
        """Load it on a device, by default on the best one."""
        from umr.models.reranker import Reranker

        found: PairScorer = Reranker.load(
            self.path, template=self.template, dtype=self.dtype, batch_tokens=self.batch_tokens, device=device
        )
        return found


@dataclass(frozen=True)
class Judging:
    """The job.

    Attributes:
        load: loads the reranker on a device, by default on the best one.
        fingerprint: of it.
    """

    load: Callable[[str | None], PairScorer]
    fingerprint: str

    def begin(self) -> Callable[[Task], Scores]:
        """Load the reranker. Raises `ModelError` where it is not the one that the scores are of."""
        reranker = self.load(None)
        if reranker.fingerprint != self.fingerprint:
            raise ModelError(
                f"the reranker of this worker has the fingerprint {reranker.fingerprint}, that of the others is {self.fingerprint}; "
                "give every machine the same files"
            )
        return lambda task: reranker.score_pairs(task[1])

    def describe(self, task: Task) -> str:
        """A task in a message."""
        first, last = task[1][0], task[1][-1]
        return f"the pairs from {first.query.id!r} with {first.candidate.id!r} to {last.query.id!r} with {last.candidate.id!r}"


def scored(tasks: Iterable[Task], reranker: PairScorer, team: Team | None) -> Iterator[tuple[Key, Scores]]:
    """Scores of each task, in the order in which they are done: by `team`, or by `reranker` where there is none."""
    if team is None:
        yield from ((key, reranker.score_pairs(pairs)) for key, pairs in tasks)
    else:
        yield from ((task[0], scores_P) for task, scores_P in team.map(tasks))
