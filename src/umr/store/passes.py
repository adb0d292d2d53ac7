"""How a search fits its memory: blocks of candidates, and how many queries go through the stream together.

Fewer bytes read come first. All queries together read the stream once; where their vectors and lists do not fit, they go in several
passes, and with every pass the candidates that its queries look for are read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from umr.errors import RecipeError
from umr.store.asked import Asked
from umr.store.best import PIECE
from umr.store.budget import size_text

MARGIN = 32
"""Candidates beyond the k wanted that the first scoring keeps."""
QUICK = 3
"""Shapes, from the largest, whose products are about as quick as the machine can."""
ENTRY = 24  # bytes a listed candidate takes at most: entry, place, order, score
RESULT = 12  # row number and score
PIECE_ENTRY = 72  # what `umr.store.best` allocates for each entry of a piece
Range = tuple[int, int]
"""First and last + 1 of queries, counted through all that is asked."""


@dataclass(frozen=True)
class Shape:
    """Candidates and queries of one matrix product."""

    block: int
    group: int

    def bytes(self, dimension: int) -> int:
        """What it takes at most: vectors on their way from fp16, scores with what is compared and picked, pieces of lists, rescoring."""
        scores = 11 * self.block * self.group
        return 18 * self.block * dimension + scores + PIECE_ENTRY * PIECE * self.group + 2 * self.rescoring(dimension)

    def rescoring(self, dimension: int) -> int:
        """Bytes of the pairs that are scored again together."""
        return max(24 * dimension, min(8 << 20, 4 * self.block * self.group))


@dataclass(frozen=True)
class Plan:
    """A way to search.

    Attributes:
        shape: of the matrix products.
        passes: queries that read the stream together.
        reads: candidates read in all passes.
        bytes: memory that it takes, results included.
    """

    shape: Shape
    passes: tuple[Range, ...]
    reads: int
    bytes: int


class Planner:
    """Finds the plan that reads least.

    Args:
        asked: all queries.
        total: candidates in the stream.
        dimension: length of a vector.
    """

    def __init__(self, asked: Sequence[Asked], total: int, dimension: int) -> None:
        self._asked, self._total, self._dimension = asked, total, dimension
        self.starts = np.cumsum([0] + [len(one.queries) for one in asked])
        self._each = [self._bytes_of(one) for one in asked]

    @property
    def queries(self) -> int:
        """Queries in all."""
        return int(self.starts[-1])

    @cached_property
    def results(self) -> int:
        """Bytes of the rankings."""
        return sum(RESULT * len(one.queries) * min(one.depth, len(pool)) for one in self._asked for pool in one.pools)

    def _bytes_of(self, one: Asked) -> int:
        return 4 * self._dimension + ENTRY * sum(depth_of(one.depth, len(pool)) for pool in one.pools)

    def slots(self, queries: Range) -> list[tuple[int, int, int]]:
        """Which of what is asked these queries are: place in the list, first and last + 1 query of it."""
        found = []
        for place, (start, stop) in enumerate(zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True)):
            first, last = max(queries[0], start), min(queries[1], stop)
            if first < last:
                found.append((place, first - start, last - start))
        return found

    def cost(self, queries: Range) -> int:
        """Bytes that these queries take in a pass."""
        return sum(self._each[place] * (last - first) for place, first, last in self.slots(queries))

    def blocks(self, queries: Range, block: int) -> list[Range]:
        """The parts of the stream that these queries have to see."""
        pools = {id(pool): pool for place, _, _ in self.slots(queries) for pool in self._asked[place].pools}
        edges = np.arange(0, self._total + block, block)
        seen = np.zeros(max(0, len(edges) - 1), bool)
        for pool in pools.values():
            low = np.searchsorted(pool.places_N, np.minimum(edges, 2**32 - 1).astype(np.uint32))
            seen |= low[1:] > low[:-1]
        return [(int(edges[n]), min(int(edges[n + 1]), self._total)) for n in np.flatnonzero(seen)]

    def plan(self, shapes: Sequence[Shape], memory: int | None, ranges: Sequence[Range]) -> Plan:
        """The plan that reads the fewest candidates; of equal ones, that with the largest matrix products.

        Small products are slow, which costs more than another pass: shapes after the first few are for when nothing else fits.

        Args:
            shapes: of matrix products, the largest first.
            memory: bytes to stay below; `None` for as much as it takes.
            ranges: queries to search for; the others have been.

        Raises:
            RecipeError: not even the smallest fits. Says how much would.
        """
        if memory is None:
            return min(self._plans(shapes[:1], None, ranges), key=_reads)
        for some in (shapes[:QUICK], shapes[QUICK:]):
            if found := self._plans(some, memory, ranges):
                return min(found, key=_reads)  # the first of equal ones
        raise TooLittle(memory, self._least(shapes[-1], ranges))

    def _plans(self, shapes: Sequence[Shape], memory: int | None, ranges: Sequence[Range]) -> list[Plan]:
        found = []
        for shape in shapes:
            own = shape.bytes(self._dimension) + self.results
            for whole in (False, True):
                passes = self._cut(ranges, None if memory is None else memory - own, shape.group, whole)
                if passes is not None:
                    reads = sum(stop - start for one in passes for start, stop in self.blocks(one, shape.block))
                    found.append(Plan(shape, passes, reads, own + max(map(self.cost, passes), default=0)))
        return found

    def _least(self, shape: Shape, ranges: Sequence[Range]) -> int:
        most = max((self.cost((first, min(first + shape.group, last))) for first, last in self._runs(ranges)), default=0)
        return shape.bytes(self._dimension) + self.results + most

    def _runs(self, ranges: Sequence[Range]) -> list[Range]:
        """The ranges, cut where one thing asked ends and the next begins."""
        return [
            (int(self.starts[place]) + first, int(self.starts[place]) + last) for one in ranges for place, first, last in self.slots(one)
        ]

    def _cut(self, ranges: Sequence[Range], room: int | None, group: int, whole: bool) -> tuple[Range, ...] | None:
        """Queries of each pass, filled one after the other; `None` where a pass has no room for one group.

        With `whole`, what would be cut in two begins a new pass, so that a pool that it alone looks for is read once.
        """
        if room is None:
            return tuple(ranges)
        passes: list[Range] = []
        for begin, end in ranges:
            first = at = begin
            left = room
            for start, stop in self._runs([(begin, end)]):
                each = self._each[self.slots((start, start + 1))[0][0]]
                while at < stop:
                    fit = left // each
                    if fit >= stop - at:
                        left, at = left - each * (stop - at), stop
                    elif fit >= group and not (whole and at == start and at > first):
                        at += fit // group * group
                        passes.append((first, at))
                        first, left = at, room
                    elif at > first:
                        passes.append((first, at))
                        first, left = at, room
                    else:
                        return None
            if first < end:
                passes.append((first, end))
        return tuple(passes)


def _reads(plan: Plan) -> tuple[int, int]:
    return plan.reads, len(plan.passes)


class TooLittle(RecipeError):
    """The memory given is too small.

    Attributes:
        needed: bytes that would do.
    """

    def __init__(self, memory: int, needed: int) -> None:
        super().__init__(f"memory {size_text(memory)} is too little for this search: give at least {size_text(needed)}")
        self.needed = needed


def depth_of(k: int, size: int) -> int:
    """Entries of a list of the first scoring."""
    return min(k + MARGIN, size)
