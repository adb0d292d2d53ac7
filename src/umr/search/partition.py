"""The rows of one modality, searched in the cheapest way that finds enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umr.protocols import Vectors
from umr.search.approximate import Cells
from umr.search.columns import Columns
from umr.search.contest import Listed
from umr.search.filters import Filter
from umr.search.flat import Signs
from umr.search.plans import Limits, Plan, Plans, depth_of, method_of
from umr.search.scoring import Found, Half, Rows, exact, rescore
from umr.search.together import Work, done

_MOST_PASS = 0.5
"""Share of the rows that must pass a filter for cells to be worth while; below, signs of those that pass are scanned."""
_HARD = 16
"""Spread of sign bits where none was found to suffice and cells hold too little: as a last resort."""


@dataclass(frozen=True)
class Partition:
    """Rows of one modality; never changed, only replaced.

    Attributes:
        columns: their fields.
        vectors_ND: float16, in a mapped file or in memory.
        signs: their sign bits; None where there are so few rows that all are scored.
        cells: an index over them, where there are many.
        plans: how hard to search.
        limits: see there.
        dead: rows that are no longer in the table, shape (N,); None where all are.
    """

    columns: Columns
    vectors_ND: Half
    signs: Signs | None
    cells: Cells | None
    plans: Plans
    limits: Limits
    dead: npt.NDArray[np.bool_] | None = None

    @property
    def modality(self) -> str:
        """Of all rows."""
        return self.columns.modality

    def __len__(self) -> int:
        """Rows that are still in the table."""
        return len(self.vectors_ND) - self.deaths

    @cached_property
    def deaths(self) -> int:
        """Rows that are not."""
        return 0 if self.dead is None else int(self.dead.sum())

    def without(self, ids: pa.Array) -> Partition:
        """The same rows, but for some."""
        gone = pc.is_in(self.columns.ids, value_set=ids.cast(self.columns.ids.type)).to_numpy()
        if not gone.any():
            return self
        return replace(self, dead=gone if self.dead is None else self.dead | gone)

    def work(self, queries_QD: Vectors, k: int, where: Filter | None = None, asking: str | None = None) -> Work[Sequence[Found | Listed]]:
        """What a search for the `k` best of each query has to do here.

        Args:
            queries_QD: unit vectors.
            k: results wanted, at least 1.
            where: which rows to choose from.
            asking: the queries' modality, where it is known.

        Returns:
            Work whose result is, for each query, its best rows or candidates for them.
        """
        rows = self.columns.passing(where)
        if self.dead is not None and rows is not None:
            rows = rows[~self.dead[rows]]
        plan = self.plans.choose(k, asking)
        total = len(self) if rows is None else len(rows)
        way = "exact" if self.signs is None or total <= self.limits.exact else self._way(plan, k, total)
        if way == "exact":
            return Work([partial(exact, queries_QD, self.vectors_ND, k, self._alive() if rows is None else rows)], lambda found: found[0])
        if way == "signs":
            return self._by_signs(queries_QD, k, plan, rows)
        return self._by_cells(queries_QD, k, plan) if rows is None else self._by_cells_that_pass(queries_QD, k, plan, rows)

    def _way(self, plan: Plan, k: int, total: int) -> str:
        cells, share = self.cells.count if self.cells else 0, total / max(1, len(self))
        if share < 1:  # cells are tried twice at least, see `_settled`
            plan, cells = replace(plan, probes=math.ceil(3 * plan.probes / share)), cells if share >= _MOST_PASS else 0
        way = method_of(plan, k, total, cells)
        return "exact" if way == "signs" and self._depth(plan, k, total) >= total / 2 else way

    def _depth(self, plan: Plan, k: int, total: int) -> int:
        """Candidates from signs. What passes a filter may be far from the query, where signs tell less; but where few pass, few compete."""
        share = total / max(1, len(self))
        return math.ceil((plan.spread or _HARD) * depth_of(k) * (max(1.0, 2 * math.sqrt(share)) if share < 1 else 1.0))

    def _by_signs(self, queries_QD: Vectors, k: int, plan: Plan, rows: Rows | None) -> Work[Sequence[Found | Listed]]:
        assert self.signs is not None
        depth = self._depth(plan, k, len(self) if rows is None else len(rows))
        work = self.signs.work(queries_QD, depth + (min(self.deaths, depth) if rows is None else 0), rows)
        return Work(work.jobs, lambda parts: [self._listed(candidates) for candidates in work.join(parts)])

    def _by_cells(self, queries_QD: Vectors, k: int, plan: Plan) -> Work[Sequence[Found | Listed]]:
        assert self.cells is not None
        look = partial(self.cells.nearest, queries_QD, depth_of(k) + min(self.deaths, depth_of(k)), plan.probes)

        def join(parts: list[list[Rows]]) -> Sequence[Found | Listed]:
            listed = [self._listed(candidates) for candidates in parts[0]]
            # Where too few are left, nearly all that is near was removed.
            return [
                one if len(one.rows) >= min(k, len(self)) else self._scanned(query_D, k, plan, None)
                for query_D, one in zip(queries_QD, listed, strict=True)
            ]

        return Work([look], join)

    def _by_cells_that_pass(self, queries_QD: Vectors, k: int, plan: Plan, rows: Rows) -> Work[Sequence[Found | Listed]]:
        looks = [partial(self._settled, query_D, k, plan, rows) for query_D in queries_QD]

        def join(found: list[Found | None]) -> Sequence[Found | Listed]:
            return [self._scanned(query_D, k, plan, rows) if one is None else one for query_D, one in zip(queries_QD, found, strict=True)]

        return Work(looks, join)

    def _settled(self, query_D: Vectors, k: int, plan: Plan, rows: Rows) -> Found | None:
        """Look into twice as many cells until that changes nothing; None where it goes on changing.

        A filter may shut out just what is near a query, and the cells that were calibrated for it hold little of the rest.
        """
        assert self.cells is not None
        passing = np.zeros(len(self.vectors_ND), np.bool_)
        passing[rows] = True
        probes, last = math.ceil(plan.probes * len(passing) / len(rows)), None
        while probes <= self.cells.count // 2:
            (candidates,) = self.cells.nearest(query_D[None], depth_of(k), probes, passing)
            found = rescore(query_D, self.vectors_ND, self._living(candidates), k)
            if last is not None and len(found.rows) >= k and np.array_equal(np.sort(found.rows), np.sort(last.rows)):
                return found
            probes, last = 2 * probes, found
        return None

    def _scanned(self, query_D: Vectors, k: int, plan: Plan, rows: Rows | None) -> Found | Listed:
        return done([self._by_signs(query_D[None], k, plan, rows)], apart=True)[0][0]

    def _listed(self, candidates: Rows) -> Listed:
        return Listed(self.vectors_ND, self._living(candidates))

    def _living(self, rows: Rows) -> Rows:
        return rows if self.dead is None else rows[~self.dead[rows]]

    def _alive(self) -> Rows | None:
        return None if self.dead is None else np.flatnonzero(~self.dead)

    def stats(self) -> dict[str, Any]:
        """Rows, bytes in memory, how ten results are looked for, and the recall that this had on the sample."""
        plan = self.plans.choose(10)
        way = "exact" if self.signs is None else method_of(plan, 10, len(self.vectors_ND), self.cells.count if self.cells else 0)
        found: dict[str, Any] = {"rows": len(self), "removed": self.deaths, "search": way, "recall": 1.0}
        if way == "signs":
            found |= {"candidates": plan.spread * depth_of(10), "recall": plan.signs_recall}
        elif way == "cells" and self.cells:
            found |= {"cells": self.cells.count, "probes": plan.probes, "recall": plan.cells_recall}
        held = (self.signs.bytes if self.signs else 0) + (self.cells.bytes if self.cells else 0)
        return found | {"memory_bytes": held, "vector_bytes": self.vectors_ND.nbytes}
