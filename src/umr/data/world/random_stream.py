"""Random numbers that depend on a key of integers alone, never on the process or on the order of work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = 64  # drawing one double at a time through numpy costs ten times as much


class Stream:
    """A PCG64 stream seeded by `SeedSequence(key)`, with the few draws that the generator needs.

    Args:
        key: non-negative integers, such as (seed, dataset, split, index). Equal keys give equal streams.
    """

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        self._block: list[float] = []

    def unit(self) -> float:
        """A float in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(_BLOCK).tolist()
        return self._block.pop()

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return int(self.unit() * n)

    def between(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + self.unit() * (high - low)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, all equally likely."""
        return options[self.below(len(options))]

    def other(self, options: Sequence[T], than: T) -> T:
        """One of `options` that differs from `than`."""
        return self.pick([option for option in options if option != than])

    def sample(self, options: Sequence[T], n: int) -> list[T]:
        """`n` of `options` without repetition, in random order."""
        pool = list(options)
        return [pool.pop(self.below(len(pool))) for _ in range(n)]
