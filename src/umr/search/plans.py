"""How hard a partition has to be searched, found out on a sample, for vectors of each modality asking.

A query from another modality lies outside the cone of the partition's vectors. All its cells are about equally far from there and signs
tell less, so what suffices for the partition's own vectors loses results. Therefore stored vectors of every modality are tried as queries
against an exact search, and so are vectors that have the partition's spread about a mean that none of its own has: a collection of
images alone is still asked by texts. Where it is not known what a query is, the most that any of them needs is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from umr.protocols import Vectors
from umr.search.approximate import Cells
from umr.search.flat import Signs, mean_of, sample_rows
from umr.search.scoring import Half, Rows, widen
from umr.store.topk import exact_topk

Method = Literal["exact", "signs", "cells"]

RESULTS = (10, 100)
"""Numbers of results that are tried."""
STRANGER = ""
"""The name that vectors about another mean go by."""

# Nanoseconds that a row takes at 768 dimensions, measured on one core: to compare its signs; its code in a cell; to score it from fp16.
_SIGNS, _CODE, _SCORE = 4.5, 30.0, 600.0
_FEW = 4000  # candidates that may always be tried


@dataclass(frozen=True)
class Limits:
    """What decides how a partition is searched.

    Attributes:
        exact: rows up to which every vector is scored, also when a filter leaves no more of a larger partition.
        flat: rows up to which there are no cells. They take long to build, and where a query comes from another modality about a
            fifth of tens of thousands of rows had to be looked at in them: by then, signs of all rows were as quick.
        recall: share of the exact results that a way of searching must find on the sample to be used.
        sample: queries of each modality that are tried.
        delta: share of the rows that may have changed since the index was built before it is built again.
    """

    exact: int = 2048
    flat: int = 500_000
    recall: float = 0.98
    sample: int = 100
    delta: float = 0.1


@dataclass(frozen=True)
class Plan:
    """What one kind of query needs.

    Attributes:
        spread: candidates that sign bits have to give, as a multiple of `depth_of(k)`; 0 where none suffices.
        probes: cells to look into; 0 where there are none or none suffice.
        signs_recall, cells_recall: what these found on the sample, of 1.
    """

    spread: int = 1
    probes: int = 0
    signs_recall: float = 1.0
    cells_recall: float = 0.0


@dataclass(frozen=True)
class Plans:
    """Plans of a partition: for each modality asking, one for each of `RESULTS`."""

    of: Mapping[str, tuple[Plan, ...]] = field(default_factory=dict)

    def choose(self, k: int, asking: str | None = None) -> Plan:
        """The plan for `k` results.

        Args:
            k: results wanted; beyond the largest tried, cells are added in proportion.
            asking: the query's modality; where it is None, or none of that modality is stored, what suffices for all.
        """
        number = next((n for n, most in enumerate(RESULTS) if k <= most), len(RESULTS) - 1)
        plans = [self.of[asking][number]] if asking and asking in self.of else [plans[number] for plans in self.of.values()]
        if not plans:
            return Plan()
        more = max(1, -(-k // RESULTS[-1]))
        return Plan(
            0 if any(not plan.spread for plan in plans) else max(plan.spread for plan in plans),
            0 if any(not plan.probes for plan in plans) else more * max(plan.probes for plan in plans),
            min(plan.signs_recall for plan in plans),
            min(plan.cells_recall for plan in plans),
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {asking: [asdict(plan) for plan in plans] for asking, plans in self.of.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Plans:
        """What `to_json` wrote."""
        return cls({asking: tuple(Plan(**plan) for plan in plans) for asking, plans in content.items()})


def depth_of(k: int) -> int:
    """Candidates that are scored again for `k` results, at least."""
    return max(400, 40 * k)


def method_of(plan: Plan, k: int, rows: int, cells: int) -> Method:
    """The way that takes least, of those that find enough.

    Args:
        plan: of the queries.
        k: results wanted.
        rows: of the partition.
        cells: of the partition, 0 without.
    """
    cost: dict[Method, float] = {"exact": rows * _SCORE}
    if plan.spread:
        cost["signs"] = rows * _SIGNS + plan.spread * depth_of(k) * _SCORE
    if plan.probes and cells:
        share = min(1.0, plan.probes / cells)
        cost["cells"] = rows * share * _CODE + cells * _SIGNS + depth_of(k) * _SCORE
    return min(cost, key=lambda method: cost[method])


def calibrate(vectors_ND: Half, signs: Signs, cells: Cells | None, asked: Mapping[str, Half], limits: Limits) -> Plans:
    """Try stored vectors as queries.

    Args:
        vectors_ND: of the partition.
        signs: of the partition.
        cells: of the partition, where it has any.
        asked: by modality, a sample of its vectors, of the partition's own modality too.
        limits: how many to try, and what they have to reach.
    """
    queries = {name: _unit(widen(vectors)) for name, vectors in asked.items() if len(vectors)}
    queries[STRANGER] = _strangers(vectors_ND, limits.sample)
    return Plans({name: _plans(some_QD, vectors_ND, signs, cells, limits.recall) for name, some_QD in queries.items()})


def _plans(queries_QD: Vectors, vectors_ND: Half, signs: Signs, cells: Cells | None, wanted: float) -> tuple[Plan, ...]:
    best_QK, scores_QK = exact_topk(queries_QD, _Stored(vectors_ND), 2 * RESULTS[-1])  # twice as many, for what ties with the last
    plans: list[Plan] = []
    for k in RESULTS:
        goal = _Goal(queries_QD, best_QK, scores_QK, k)
        spread, signs_recall = _spread(goal, signs, wanted)
        probes, cells_recall = _probes(goal, cells, wanted, plans[-1].probes if plans else 0) if cells else (0, 0.0)
        plans.append(Plan(spread, probes, round(signs_recall, 4), round(cells_recall, 4)))
    return tuple(plans)


@dataclass(frozen=True)
class _Goal:
    """What an exact search found, which has to be found again.

    Attributes:
        queries_QD: that were tried.
        best_QK, scores_QK: rows and scores, best first; more than `k` of them.
        k: results that count.
    """

    queries_QD: Vectors
    best_QK: Rows
    scores_QK: npt.NDArray[np.float32]
    k: int

    def share(self, listed: list[Rows]) -> float:
        """The share of the results that is among the candidates, which are scored exactly later. Of equal vectors, any is as good."""
        found = []
        for best_K, scores_K, rows in zip(self.best_QK, self.scores_QK, listed, strict=True):
            own = int(scores_K[0] > 1 - 1e-3)  # a query that is stored finds itself, which says nothing
            best_K, scores_K = best_K[own:], scores_K[own:]
            k = min(self.k, len(best_K))
            found.append(min(np.isin(best_K[scores_K >= scores_K[k - 1]], rows).sum(), k) / k)
        return float(np.mean(found))


def _spread(goal: _Goal, signs: Signs, wanted: float) -> tuple[int, float]:
    """The least multiple of the usual candidates that finds enough, and the share it finds."""
    spread, recall, usual = 1, 0.0, depth_of(goal.k)
    most = max(len(signs) // 8, min(len(signs) // 2, _FEW))  # beyond, scoring all of them is not far from as quick
    while spread == 1 or spread * usual <= most:
        recall = goal.share(signs.nearest(goal.queries_QD, spread * usual))
        if recall >= wanted:
            return spread, recall
        spread *= 2
    return 0, recall


def _probes(goal: _Goal, cells: Cells, wanted: float, least: int) -> tuple[int, float]:
    """The least number of cells that finds enough, and the share it finds; not below `least`, which fewer results needed."""
    probes, recall = max(2, least), 0.0
    while probes <= max(2, cells.count // 2):
        recall = goal.share(cells.nearest(goal.queries_QD, depth_of(goal.k), probes))
        if recall >= wanted:
            return probes, recall
        probes = probes * 3 // 2
    return 0, recall


def _strangers(vectors_ND: Half, count: int) -> Vectors:
    """Queries about a mean of the same length in another direction."""
    draw = np.random.default_rng(0)
    mean_D = mean_of(vectors_ND)
    other_D = draw.standard_normal(len(mean_D)).astype(np.float32)
    other_D *= np.linalg.norm(mean_D) / np.linalg.norm(other_D)
    return _unit(widen(vectors_ND[sample_rows(len(vectors_ND), count, seed=1)]) - mean_D + other_D)


def _unit(wide_QD: Vectors) -> Vectors:
    return np.asarray(wide_QD / np.maximum(np.linalg.norm(wide_QD, axis=1, keepdims=True), 1e-12), np.float32)


class _Stored:
    """A partition's vectors, as `umr.store` searches read them."""

    def __init__(self, vectors_ND: Half) -> None:
        self._vectors_ND = vectors_ND

    def __len__(self) -> int:
        return len(self._vectors_ND)

    @property
    def dimension(self) -> int:
        return self._vectors_ND.shape[1]

    def read(self, start: int, stop: int) -> Vectors:
        return widen(self._vectors_ND[start:stop])

    def take(self, rows: Rows) -> Vectors:
        return widen(self._vectors_ND[rows])

    def release(self) -> None:
        pass
