"""Exact search of many pools at once: all candidates stream past once, and every query of every task picks what its pools hold.

Candidates are read in blocks. A matrix product in single precision or bfloat16 finds somewhat more than k candidates a query and pool
(`umr.store.scanning`); these are scored again in double precision (`umr.store.rescoring`), which alone decides on scores and order. So
blocks, passes, threads and devices change neither ids nor scores: results are those of scoring every pair in double precision, rounding to
single, and ordering by score and then by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from umr.progress import Bar
from umr.protocols import Vectors
from umr.store.asked import Asked, Places
from umr.store.best import Keys, Scores, nothing, numbers_of, worst
from umr.store.halves import lost
from umr.store.passes import Plan, Planner, Range, Shape, TooLittle, depth_of
from umr.store.rescoring import Listed, highest_left_out, rank, score_listed, settle, slack, unsettled
from umr.store.rows import Rows, check_one_model
from umr.store.saved import Saved, Scan
from umr.store.scanning import Cpu, Engine, Lists, Part, default_engine

Ranking: TypeAlias = tuple[Places, Scores]
"""Rows of a pool, best first, and scores, both of shape (Q, min(k, N))."""


@dataclass(frozen=True)
class _Slot:
    """Queries of one `Asked` in a pass.

    Attributes:
        place: of what is asked.
        first: query of it, from which on.
        rows: of the queries of the pass.
    """

    place: int
    first: int
    rows: slice


class Streaming:
    """A search: first planned, then run.

    Args:
        stream: all candidates, fewer than 2**32.
        asked: queries and their pools.
        memory: bytes that the search may take, rankings included; `None` for as much as one pass takes.
        engine: computes the first scoring.
        saved: keeps what is done of a long search, and knows what was.

    Attributes:
        plan: passes and blocks.

    Raises:
        RecipeError: `memory` is too little. Says how much would do.
        StoreError: vectors of different models.
    """

    def __init__(
        self, stream: Rows, asked: Sequence[Asked], memory: int | None = None, engine: Engine | None = None, saved: Saved | None = None
    ) -> None:
        check_one_model([stream, *(one.queries for one in asked)])
        self._stream, self._asked, self._engine, self._saved = stream, asked, engine or Cpu(), saved
        self._planner = Planner(asked, len(stream), stream.dimension)
        room = self._engine.room()
        memory = min((one for one in (memory, room) if one is not None), default=None)
        ranges = [(0, self._planner.queries)] if self._planner.queries else []
        if saved is not None:
            ranges = saved.missing(self._planner.queries)
        self.plan: Plan = self._planner.plan(self._engine.shapes, memory, ranges)

    def run(self, bar: Bar | None = None) -> list[list[Ranking]]:
        """Search.

        Args:
            bar: advanced by the number of candidates read, `plan.reads` in all.

        Returns:
            For each thing asked, the rankings of its pools.
        """
        found = [[_empty(len(one.queries), min(one.depth, len(pool))) for pool in one.pools] for one in self._asked]
        if self._saved is not None:
            for queries, parts in self._saved.finished():
                self._place(found, queries, parts)
        for queries in self.plan.passes:
            parts = self._pass(queries, bar)
            self._place(found, queries, parts)
            if self._saved is not None:
                self._saved.finish(queries, parts)
        if self._saved is not None:
            self._saved.tidy()
        return found

    def _place(self, found: list[list[Ranking]], queries: Range, parts: Sequence[Ranking]) -> None:
        following = iter(parts)
        for place, first, last in self._planner.slots(queries):
            for rows_QK, scores_QK in found[place]:
                rows_QK[first:last], scores_QK[first:last] = next(following)

    def _pass(self, queries: Range, bar: Bar | None) -> list[Ranking]:
        slots, queries_QD = self._read_queries(queries)
        best, longest, rounding = self._scan(queries, slots, queries_QD, bar)
        slack_Q1, whole_Q1 = slack(queries_QD, longest), slack(queries_QD, longest, rounding)
        floors, listed = [], []
        which = [(slot, number) for slot in slots for number in range(len(self._asked[slot.place].pools))]
        for at, (slot, _) in enumerate(which):
            floors.append(worst(best[at]) if best[at].shape[1] else np.empty((len(best[at]), 0), np.float32))
            listed.append(Listed(slot.rows.start, numbers_of(best[at])))
            best[at] = nothing(0, 0)  # its memory is needed
        chunk = self.plan.shape.rescoring(self._stream.dimension)
        scored = score_listed(queries_QD, self._stream, listed, chunk) if listed else []
        rankings = []
        for at, (slot, number) in enumerate(which):
            one = self._asked[slot.place]
            ranking = rank(listed[at].places_QM, scored[at], one.pools[number], one.depth)
            again = unsettled(ranking[1], highest_left_out(floors[at], whole_Q1[slot.rows], rounding), one.depth)
            if len(again):
                part_QD, part_Q1 = queries_QD[slot.rows][again], slack_Q1[slot.rows][again]
                blocks = self._read_blocks(self._blocks_of(slot), 0)
                settled = settle(part_QD, part_Q1, ranking[1][again], blocks, one.pools[number], self.plan.shape)
                ranking[0][again], ranking[1][again] = settled
            rankings.append(ranking)
        return rankings

    def _read_queries(self, queries: Range) -> tuple[list[_Slot], Vectors]:
        queries_QD = np.empty((queries[1] - queries[0], self._stream.dimension), np.float32)
        slots, start = [], 0
        step = self.plan.shape.block
        for place, first, last in self._planner.slots(queries):
            source = self._asked[place].queries
            for row in range(first, last, step):
                some = source.read(row, min(row + step, last))
                queries_QD[start + row - first : start + row - first + len(some)] = some
                source.release()
            slots.append(_Slot(place, first, slice(start, start + last - first)))
            start += last - first
        return slots, queries_QD

    def _scan(self, queries: Range, slots: list[_Slot], queries_QD: Vectors, bar: Bar | None) -> tuple[list[Keys], float, float]:
        """Lists of all queries and pools, the length of the longest candidate seen, and the most that rounding took from one."""
        before = self._saved.scan(queries) if self._saved is not None else None
        best = before.best if before is not None else self._nothing(slots)
        longest, rounding, done = (before.longest, before.rounding, before.done) if before is not None else (0.0, 0.0, 0)
        lists, at = list[Lists](), 0
        for slot in slots:
            pools = len(self._asked[slot.place].pools)
            lists.append(self._engine.lists(queries_QD[slot.rows], best[at : at + pools], self.plan.shape.group))
            at += pools
        blocks = self._planner.blocks(queries, self.plan.shape.block)
        if bar:
            bar.advance(sum(stop - start for start, stop in blocks if stop <= done))
        for start, block_BD in self._read_blocks(blocks, done):
            longest = max(longest, float(np.sqrt(np.einsum("bd,bd->b", block_BD, block_BD).max())))
            if self._engine.half:
                rounding = max(rounding, float(lost(block_BD).max()), float(np.finfo(np.float32).tiny))  # also where nothing was lost
            block = self._engine.put(block_BD)
            for slot, own in zip(slots, lists, strict=True):
                if parts := self._parts(slot, start, start + len(block_BD)):
                    own.see(block, parts)
            if self._saved is not None and self._saved.due():
                self._saved.keep(queries, Scan(start + len(block_BD), longest, rounding, self._keys(slots, lists)))
            if bar:
                bar.advance(len(block_BD))
        return self._keys(slots, lists), longest, rounding

    def _nothing(self, slots: list[_Slot]) -> list[Keys]:
        asked = [(slot, self._asked[slot.place]) for slot in slots]
        return [nothing(slot.rows.stop - slot.rows.start, depth_of(one.depth, len(pool))) for slot, one in asked for pool in one.pools]

    def _keys(self, slots: list[_Slot], lists: list[Lists]) -> list[Keys]:
        pools = [range(len(self._asked[slot.place].pools)) for slot in slots]
        return [own.keys(pool) for own, some in zip(lists, pools, strict=True) for pool in some]

    def _blocks_of(self, slot: _Slot) -> list[Range]:
        start = int(self._planner.starts[slot.place]) + slot.first
        return self._planner.blocks((start, start + 1), self.plan.shape.block)

    def _read_blocks(self, blocks: Sequence[Range], done: int) -> Iterator[tuple[int, Vectors]]:
        for start, stop in blocks:
            if stop > done:
                start = max(start, done)
                yield start, self._stream.read(start, stop)
                self._stream.release()

    def _parts(self, slot: _Slot, start: int, stop: int) -> list[Part]:
        parts = []
        for number, pool in enumerate(self._asked[slot.place].pools):
            places_C, _ = pool.part(start, stop)
            if len(places_C):
                parts.append(Part(number, places_C - np.uint32(start), places_C))
        return parts


def quickest(
    stream: Rows, asked: Sequence[Asked], memory: int | None = None, saved: Saved | None = None, block: int | None = None
) -> Streaming:
    """A search by the quickest engine there is, and by the CPU's where a GPU has no room for it.

    Args:
        stream: as in `Streaming`, and so are `asked`, `memory` and `saved`.
        asked: queries and their pools.
        memory: bytes.
        saved: what is kept.
        block: candidates of a matrix product at most; by default as the engine has it.

    Raises:
        TooLittle: `memory` is too little. Says how much would do.
        StoreError: vectors of different models.
    """
    multiplications = stream.dimension * sum(len(one.queries) * max(map(len, one.pools), default=0) for one in asked)

    def by(engine: Engine) -> Streaming:
        if block is not None:
            engine.shapes = tuple(Shape(min(one.block, block), one.group) for one in engine.shapes)
        return Streaming(stream, asked, memory, engine, saved)

    try:
        return by(default_engine(multiplications))
    except TooLittle:
        return by(Cpu())


def _empty(queries: int, depth: int) -> Ranking:
    return np.empty((queries, depth), np.int64), np.empty((queries, depth), np.float32)
