"""Where rankings come from: a model that searches, or run files of another system. Mining goes on alike with either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from umr.bulk.staff import Staff
from umr.data.benchmark import Benchmark, searched_pools
from umr.data.fingerprint import fingerprint
from umr.errors import DataError
from umr.evaluation.embeddings import Embeddings
from umr.evaluation.own import own_rows
from umr.evaluation.wording import Wording, instruction_of
from umr.mining.filters import GLOBAL, LOCAL, Lists, contains, merge
from umr.mining.queries import Group, Ragged
from umr.mining.recall import ask_training
from umr.mining.runs import RunFile
from umr.mining.settings import MineSettings
from umr.mining.tables import PoolColumns
from umr.protocols import Encoder
from umr.store import VectorView

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
PAIRS = 2048
"""Pairs scored at a time."""


class Source(Protocol):
    """Rankings of the queries of some groups, a block at a time."""

    metric: str
    columns: PoolColumns

    def lists(self, group: int, start: int, stop: int) -> Lists:
        """What was found for queries `start` to `stop` of a group; a candidate that was found twice is there once."""
        ...

    def positive_scores(self, group: int, start: int, stop: int, lists: Lists, right: Sequence[Ragged]) -> Scores:
        """Best score of a positive of each query, nan where none is known."""
        ...

    def scores(self, group: int, start: int, queries_P: Rows, rows_P: Rows) -> Scores:
        """Scores of any P candidates to queries counted from `start`, nan where none is known."""
        ...

    def instructions(self, group: int, start: int, stop: int) -> list[str | None]:
        """The wording that each query carries."""
        ...


class ModelSource:
    """Rankings by a model. Making one embeds what is not embedded yet."""

    metric: str = "cosine"

    def __init__(
        self,
        encoder: Encoder,
        benchmark: Benchmark,
        groups: Sequence[Group],
        settings: MineSettings,
        work_dir: Path,
        staff: Staff | None = None,
    ) -> None:
        embeddings = Embeddings(encoder, benchmark, work_dir, staff)
        self._settings, self._pools = settings, searched_pools(benchmark, settings.pools)
        self._asked = ask_training(embeddings, benchmark, groups, self._pools, settings.instruction)
        store = self._asked[0].pools["global"]
        self._store = store
        self.columns = PoolColumns(benchmark.train_pool(), store)

    def lists(self, group: int, start: int, stop: int) -> Lists:
        """Exact search in each pool."""
        asked, found = self._asked[group], []
        for name, run in zip(self._pools, asked.search(self._pools, start, stop, self._settings.depth), strict=True):
            pool = asked.pools[name]
            rows_QK = pool.rows[run.rows_QK] if isinstance(pool, VectorView) else run.rows_QK
            found.append(Lists.ranked(rows_QK, run.scores_QK, LOCAL if name == "local" else GLOBAL))
        return merge(found)

    def positive_scores(self, group: int, start: int, stop: int, lists: Lists, right: Sequence[Ragged]) -> Scores:
        """Cosines of the positives, found or not, computed as the search computes its own."""
        best_Q = np.full(stop - start, -np.inf, np.float32)
        for part in right:
            np.maximum.at(best_Q, part.owners, self.scores(group, start, part.owners, part.rows))
        return np.where(np.isneginf(best_Q), np.float32(np.nan), best_Q)

    def scores(self, group: int, start: int, queries_P: Rows, rows_P: Rows) -> Scores:
        """Cosines."""
        queries, scores_P = self._asked[group].queries.store, np.empty(len(rows_P), np.float32)
        for first in range(0, len(rows_P), PAIRS):
            some = slice(first, first + PAIRS)
            vectors_PD = queries.take(start + queries_P[some]).astype(np.float64)
            scores_P[some] = (vectors_PD * self._store.take(rows_P[some])).sum(axis=-1)
        return scores_P

    def instructions(self, group: int, start: int, stop: int) -> list[str | None]:
        """Those that the queries were embedded with."""
        return list(self._asked[group].queries.instructions[start:stop])


class RunSource:
    """Rankings from files; a candidate that several of them have counts once, with its best rank."""

    def __init__(self, runs: Sequence[RunFile], benchmark: Benchmark, groups: Sequence[Group], wording: Wording) -> None:
        self.metric: str = runs[0].metric or "rank"
        self._runs, self._groups, self._pool = runs, groups, benchmark.train_pool()
        self._wording, self._own = wording, [own_rows(benchmark, group.qids, self._pool) for group in groups]
        self.columns = PoolColumns(self._pool)

    def lists(self, group: int, start: int, stop: int) -> Lists:
        """What the files say; nothing for a query that they do not have."""
        own_Q = None if (own := self._own[group]) is None else own[start:stop]
        return merge([run.lists(self._groups[group].qids[start:stop], self._pool, own_Q) for run in self._runs])

    def positive_scores(self, group: int, start: int, stop: int, lists: Lists, right: Sequence[Ragged]) -> Scores:
        """Scores of positives that the files list."""
        known_QW = np.logical_or.reduce([contains(part, lists.rows_QW) for part in right])
        scores_QW = np.where(known_QW, lists.scores_QW, np.float32(-np.inf))
        best_Q = scores_QW.max(axis=1, initial=-np.inf)
        return np.where(np.isneginf(best_Q), np.float32(np.nan), best_Q)

    def scores(self, group: int, start: int, queries_P: Rows, rows_P: Rows) -> Scores:
        """Unknown: asked for candidates that the files do not list."""
        return np.full(len(rows_P), np.nan, np.float32)

    def instructions(self, group: int, start: int, stop: int) -> list[str | None]:
        """Chosen as for a model."""
        asked = (self._groups[group].query(index) for index in range(start, min(stop, len(self._groups[group].qids))))
        return [instruction_of(query, self._wording) for query in asked]


def in_runs(runs: Sequence[RunFile], groups: Sequence[Group]) -> tuple[list[Group], int]:
    """The groups with the queries that the files rank, and how many queries of the files are in no group.

    Raises:
        DataError: there is none to mine for.
    """
    ranked = {qid for run in runs for qid in run.qids}
    left = [group for group in (group.only(ranked) for group in groups) if group.qids]
    if not left:
        raise DataError(f"{runs[0].path}: none of its queries is a training query to mine for")
    return left, len(ranked) - sum(len(group.qids) for group in left)


def run_fingerprint(paths: Sequence[Path]) -> str:
    """Hash over run files, in their order."""
    return "-".join(fingerprint([Path(path)], Path(path).parent)[:16] for path in paths)
