"""What a search is asked for: queries, and the parts of the stream of candidates that each of them ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from umr.store.rows import Rows

Places: TypeAlias = npt.NDArray[np.int64]
Some: TypeAlias = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Among:
    """Candidates that belong to one pool.

    Attributes:
        places_N: where they are in the stream, ascending, all below 2**32.
        rows_N: the number of each in its pool, by which equal scores are ordered and results are named.
    """

    places_N: Some
    rows_N: Some

    @classmethod
    def of(cls, places_N: npt.NDArray[np.integer]) -> Among:
        """A pool whose row `n` is at place `places_N[n]`; places differ."""
        rows_N = np.argsort(places_N, kind="stable")
        return cls(places_N[rows_N].astype(np.uint32), rows_N.astype(np.uint32))

    @classmethod
    def run(cls, start: int, count: int) -> Among:
        """A pool of `count` candidates one after the other from `start`."""
        return cls(np.arange(start, start + count, dtype=np.uint32), np.arange(count, dtype=np.uint32))

    def __len__(self) -> int:
        return len(self.places_N)

    def where(self, chosen_N: npt.NDArray[np.bool_]) -> Among:
        """Those whose row is chosen; rows keep their numbers."""
        keep = chosen_N[self.rows_N]
        return Among(self.places_N[keep], self.rows_N[keep])

    def rows(self, places: Some) -> Places:
        """Numbers in the pool of candidates at some of its places, any shape."""
        return self.rows_N[np.searchsorted(self.places_N, places)].astype(np.int64)

    def part(self, start: int, stop: int) -> tuple[Some, Some]:
        """Places and rows of those from place `start` to `stop`."""
        low, high = np.searchsorted(self.places_N, np.array([start, min(stop, 2**32 - 1)], np.uint32))
        return self.places_N[low:high], self.rows_N[low:high]


@dataclass(frozen=True)
class Asked:
    """Q queries and what each of them ranks.

    Attributes:
        queries: Q vectors.
        pools: any number of pools; each gives a ranking.
        depth: K, results a query and pool.
    """

    queries: Rows
    pools: Sequence[Among]
    depth: int
