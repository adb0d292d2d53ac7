"""Which examples make up which batch: a pure function of the seed, so that a resumed run goes on exactly where it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from umr.errors import RecipeError


@dataclass(frozen=True)
class Pick:
    """One example of a batch: which source, which of its examples, in which pass over it."""

    source: int
    index: int
    epoch: int


class Plan:
    """The schedule of a run.

    Args:
        sizes: number of examples of each source.
        weights: share of each source relative to its size.
        batch_size: queries a step.
        steps: number of steps; or None with `epochs`.
        epochs: passes over the weighted total; or None with `steps`.
        seed: of everything.
        tasks_per_batch: sources a batch, in equal parts; None draws each query from any source. No source takes more than one
            part of a batch, whatever its weight.
    """

    def __init__(
        self,
        sizes: list[int],
        weights: list[float],
        batch_size: int,
        steps: int | None,
        epochs: float | None,
        seed: int,
        tasks_per_batch: int | None = None,
    ) -> None:
        mass = np.array(sizes, float) * np.array(weights, float)
        if not mass.sum() > 0:
            raise RecipeError("data: no training example has a weight above zero")
        per_batch = tasks_per_batch or len(sizes)
        if tasks_per_batch is not None and tasks_per_batch > int((mass > 0).sum()):
            raise RecipeError(f"training.tasks_per_batch={tasks_per_batch}, but the data has only {int((mass > 0).sum())} settings")
        if tasks_per_batch is not None and batch_size % tasks_per_batch:
            raise RecipeError(f"training.batch_size={batch_size} is no multiple of training.tasks_per_batch={tasks_per_batch}")
        self.sizes, self.seed, self.batch_size = sizes, seed, batch_size
        self.steps = steps if steps is not None else max(1, round(float(mass.sum()) * (epochs or 0) / batch_size))
        self.counts_SN = self._draw_counts(mass / mass.sum(), per_batch if tasks_per_batch else None)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}  # the current permutation of each source
        self._before_SN = np.cumsum(self.counts_SN, axis=0) - self.counts_SN

    def _draw_counts(self, share_N: np.ndarray, per_batch: int | None) -> np.ndarray:
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, 1]))
        if per_batch is None:
            return rng.multinomial(self.batch_size, share_N, size=self.steps)
        counts_SN = np.zeros((self.steps, len(share_N)), dtype=np.int64)
        part_N = _parts_a_batch(share_N, per_batch)
        owed_N = np.where(share_N > 0, rng.random(len(share_N)) * part_N, -np.inf)
        for step in range(self.steps):
            # Whoever is owed most goes next: every source gets its share, evenly over time, without long gaps.
            owed_N += part_N
            chosen = np.argsort(-owed_N, kind="stable")[:per_batch]
            counts_SN[step, chosen] = self.batch_size // per_batch
            owed_N[chosen] -= 1
        return counts_SN

    def batch(self, step: int) -> list[Pick]:
        """The examples of a step, in a fixed order."""
        picks: list[Pick] = []
        for source in np.flatnonzero(self.counts_SN[step]):
            start, count, size = int(self._before_SN[step, source]), int(self.counts_SN[step, source]), self.sizes[source]
            for position in range(start, start + count):
                epoch = position // size
                picks.append(Pick(int(source), int(self._order(int(source), epoch)[position % size]), epoch))
        return picks

    def _order(self, source: int, epoch: int) -> np.ndarray:
        cached = self._orders.get(source)
        if cached is None or cached[0] != epoch:
            rng = np.random.default_rng(np.random.SeedSequence([self.seed, 2, source, epoch]))
            cached = self._orders[source] = (epoch, rng.permutation(self.sizes[source]))
        return cached[1]


def _parts_a_batch(share_N: np.ndarray, count: int) -> np.ndarray:
    """How often each source is one of the `count` of a batch, on average: by its share, but at most always."""
    full_N = np.zeros(len(share_N), bool)
    while True:
        free_N = np.where(full_N, 0.0, share_N)
        part_N = np.where(full_N, 1.0, free_N / max(free_N.sum(), 1e-300) * (count - full_N.sum()))
        if not (part_N > 1).any():
            return part_N
        full_N |= part_N >= 1
