"""What an evaluation found: scores per setting and pool, averages, and the rankings behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr import files
from umr.evaluation.averages import Average, averages
from umr.evaluation.modality import ACCURACY_AT, OUTCOMES, Diagnosis
from umr.evaluation.per_query import QueryScores
from umr.evaluation.stamps import Stamps, union

if TYPE_CHECKING:
    from rich.table import Table

    from umr.evaluation.rerank import RerankReport
    from umr.evaluation.searches import Mixed

FORMAT = 1
RUN_NAME = "umr"
DIAGNOSED = (*(f"modality_accuracy@{k}" for k in ACCURACY_AT), *OUTCOMES[1:])
"""What is measured in a mixed pool only: modality accuracies, and shares of UniIR's types of error."""


@dataclass(frozen=True)
class Run:
    """Rankings of Q queries over one pool.

    Attributes:
        qids: Q query ids.
        rows_QK: rows of the pool, best first, shape (Q, K); -1 at the end of a line where there are fewer results.
        scores_QK: their inner products, shape (Q, K).
        dids: ids of the pool's rows.
    """

    qids: tuple[str, ...]
    rows_QK: npt.NDArray[np.int64]
    scores_QK: npt.NDArray[np.float32]
    dids: pa.ChunkedArray

    def rankings(self) -> dict[str, list[str]]:
        """Candidate ids by query id, best first."""
        found = self.dids.take(pa.array(self.rows_QK[self.rows_QK >= 0])).to_pylist()
        ends = (self.rows_QK >= 0).sum(axis=1).cumsum().tolist()
        return {qid: found[start:end] for qid, start, end in zip(self.qids, [0, *ends], ends, strict=False)}

    def trec_lines(self, name: str = RUN_NAME, more: str = "") -> Iterator[str]:
        """Lines `qid Q0 did rank score name`, ranks from 1, with `more` at the end."""
        for (qid, dids), scores in zip(self.rankings().items(), self.scores_QK.tolist(), strict=True):
            for rank, (did, score) in enumerate(zip(dids, scores, strict=False), 1):
                yield f"{qid} Q0 {did} {rank} {score:.9g} {name}{more}\n"


@dataclass(frozen=True)
class PoolResult:
    """Scores of one setting over one pool, all in percent.

    Attributes:
        size: number of candidates that are ranked.
        metrics: mean over queries by metric name; in a mixed pool with those of `DIAGNOSED`.
        chance: what random rankings would score, for the hit rates.
        positives: right answers judged, over all queries.
        unreachable: those of them that could not be ranked, as they are not in the pool.
        unanswerable: queries without any right answer that could be ranked; they score 0.
        stamps: what makes these numbers differ from the published way of measuring; see `umr.evaluation.stamps`.
        modality: in a mixed pool, what comes first.
    """

    size: int
    metrics: dict[str, float]
    chance: dict[str, float]
    positives: int
    unreachable: int
    unanswerable: int
    stamps: Stamps = field(default_factory=dict)
    modality: Diagnosis | None = None


@dataclass(frozen=True)
class SettingResult:
    """Scores of one setting.

    Attributes:
        setting: `"<dataset>_task<k>"`.
        task: such as `"image,text -> image"`.
        main_metric: the metric that enters the average.
        queries: number of queries.
        pools: by pool name: `"local"`, and `"global"` or what a filtered or calibrated one is called.
    """

    setting: str
    task: str
    main_metric: str
    queries: int
    pools: dict[str, PoolResult]


@dataclass(frozen=True)
class EvaluationResult:
    """Everything `umr.evaluation.evaluate` reports. Scores are in percent, unrounded.

    Attributes:
        fingerprint: of the model; of rankings that were read from files, `run:` and a hash over them.
        dimension: of its vectors; `None` where there are none.
        data: fingerprint of the data evaluated on.
        split: `"test"`, `"val"` or `"train"`.
        instruction: as of `umr.evaluation.wording`; `"unknown"` for rankings that were read.
        depth: results a query that were ranked.
        settings: in the benchmark's order.
        left_out: records not evaluated because they were unusable, counted by kind.
        rerank: what a reranker did to the rankings; None for a search alone.
        mixed: how the global pool was searched, where it was.
        own_positives: whether right answers of other datasets than the query's were left out.
        runs: rankings by setting and pool, after reranking; not part of the JSON.
        queries: every query's scores by setting and pool; likewise.
        seconds: time taken by step; not part of the JSON.
    """

    fingerprint: str
    dimension: int | None
    data: str
    split: str
    instruction: str
    depth: int
    settings: tuple[SettingResult, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    rerank: RerankReport | None = None
    mixed: Mixed | None = None
    own_positives: bool = False
    runs: Mapping[tuple[str, str], Run] = field(default_factory=dict, repr=False, compare=False)
    queries: Mapping[tuple[str, str], QueryScores] = field(default_factory=dict, repr=False, compare=False)
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def pools(self) -> list[str]:
        """Names of the pools evaluated, the local one first."""
        return list(dict.fromkeys(pool for one in self.settings for pool in one.pools))

    @property
    def mixed_pool(self) -> str | None:
        """Name of the pool that holds candidates of all settings; `None` where it was not searched."""
        return next((pool for pool in self.pools if pool != "local"), None)

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What comes first in the mixed pool, over the queries of all settings."""
        found = [pool.modality for one in self.settings for pool in one.pools.values() if pool.modality is not None]
        return Diagnosis.sum(found) if found else None

    @cached_property
    def averages(self) -> dict[str, dict[str, float]]:
        """Unweighted means over settings by pool.

        They are `"main"` (each setting's main metric, as M-BEIR reports), `"hit@5"`, and in a mixed pool those of `DIAGNOSED`.
        """
        return {pool: self._averages([one.pools[pool] for one in self.settings], pool == self.mixed_pool) for pool in self.pools}

    def _averages(self, found: list[PoolResult], mixed: bool) -> dict[str, float]:
        mains = [pool.metrics[one.main_metric] for one, pool in zip(self.settings, found, strict=True)]
        others = {name: float(np.mean([pool.metrics[name] for pool in found])) for name in ("hit@5", *(DIAGNOSED if mixed else ()))}
        return {"main": float(np.mean(mains)), **others}

    @cached_property
    def groups(self) -> dict[str, dict[str, Average]]:
        """Means of the main metrics by pool and kind of search, each with the settings it is a mean of; see `umr.evaluation.averages`."""
        tasks = {one.setting: one.task for one in self.settings}
        mains = {pool: {one.setting: one.pools[pool].metrics[one.main_metric] for one in self.settings} for pool in self.pools}
        return {pool: averages(scores, tasks) for pool, scores in mains.items()}

    def stamps(self, pool: str) -> list[str]:
        """Kinds of deviation that any number over this pool has, and so its averages; see `umr.evaluation.stamps`."""
        return union([one.pools[pool].stamps for one in self.settings])

    def to_json(self) -> str:
        """The result as JSON: the same bytes for the same model and data, so without times, dates and paths."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "model": _present([("fingerprint", self.fingerprint), ("dimension", self.dimension)]),
            "data": {"fingerprint": self.data, "split": self.split, "left_out": self.left_out},
            "instruction": self.instruction,
            "positives": "own" if self.own_positives else "all",
            "depth": self.depth,
            "settings": [asdict(one, dict_factory=_present) for one in self.settings],
            "averages": self.averages,
            "groups": {pool: {name: asdict(one) for name, one in found.items()} for pool, found in self.groups.items()},
            "stamps": {pool: self.stamps(pool) for pool in self.pools},
        }
        if self.rerank is not None:
            content["rerank"] = self.rerank.to_json()
        if self.diagnosis is not None:
            content["modality"] = {str(self.mixed_pool): asdict(self.diagnosis)}
        if self.mixed is not None and (how := self.mixed.to_json()):
            content["search"] = {self.mixed.name: how}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    def table(self) -> Table:
        """A row for each setting and the averages; see `umr.evaluation.tables.score_table`."""
        from umr.evaluation.tables import score_table

        return score_table(self)

    def __str__(self) -> str:
        from rich.console import Console

        out = StringIO()
        Console(file=out, width=100, no_color=True).print(self.table())
        return out.getvalue()

    def write_run_trec(self, folder: Path) -> list[Path]:
        """Write `<setting>_<pool>.trec` for every setting and pool, in the format trec_eval reads; returns the paths."""
        paths = []
        for (setting, pool), run in self.runs.items():
            path = Path(folder) / f"{setting}_{pool}.trec"
            files.write_text(path, "".join(run.trec_lines()))
            paths.append(path)
        return paths


def _present(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if value is not None}
