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
from umr.evaluation.modality import ACCURACY_AT, OUTCOMES, Diagnosis, short

if TYPE_CHECKING:
    from rich.table import Table

    from umr.evaluation.rerank import RerankReport
    from umr.evaluation.searches import Mixed

FORMAT = 1
RUN_NAME = "umr"
DIAGNOSED = (*(f"modality_accuracy@{k}" for k in ACCURACY_AT), *OUTCOMES[1:])
"""What is measured in a mixed pool only: modality accuracies, and shares of UniIR's types of error."""
_CAPTION = "In percent. t: text, i: image, v: video. chance: random rankings. modality@1: first global result is of the kind looked for."


@dataclass(frozen=True)
class Run:
    """Rankings of Q queries over one pool.

    Attributes:
        qids: Q query ids.
        rows_QK: rows of the pool, best first, shape (Q, K).
        scores_QK: their inner products, shape (Q, K).
        dids: ids of the pool's rows.
    """

    qids: tuple[str, ...]
    rows_QK: npt.NDArray[np.int64]
    scores_QK: npt.NDArray[np.float32]
    dids: pa.ChunkedArray

    def rankings(self) -> dict[str, list[str]]:
        """Candidate ids by query id, best first."""
        depth = self.rows_QK.shape[1]
        found = self.dids.take(pa.array(self.rows_QK.ravel())).to_pylist()
        return {qid: found[row * depth : (row + 1) * depth] for row, qid in enumerate(self.qids)}

    def trec_lines(self) -> Iterator[str]:
        """Lines `qid Q0 did rank score umr`, ranks from 1."""
        for (qid, dids), scores in zip(self.rankings().items(), self.scores_QK.tolist(), strict=True):
            for rank, (did, score) in enumerate(zip(dids, scores, strict=True), 1):
                yield f"{qid} Q0 {did} {rank} {score:.9g} {RUN_NAME}\n"


@dataclass(frozen=True)
class PoolResult:
    """Scores of one setting over one pool, all in percent.

    Attributes:
        size: number of candidates that are ranked.
        metrics: mean over queries by metric name; in a mixed pool with those of `DIAGNOSED`.
        chance: what random rankings would score, for the hit rates.
        modality: in a mixed pool, what comes first.
    """

    size: int
    metrics: dict[str, float]
    chance: dict[str, float]
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
        fingerprint: of the model.
        dimension: of its vectors.
        data: fingerprint of the data evaluated on.
        split: `"test"`, `"val"` or `"train"`.
        instruction: `"first"`, `"seeded"` or `"none"`.
        depth: results a query that were ranked.
        settings: in the benchmark's order.
        left_out: records not evaluated because they were unusable, counted by kind.
        rerank: what a reranker did to the rankings; None for a search alone.
        mixed: how the global pool was searched, where it was.
        runs: rankings by setting and pool, after reranking; not part of the JSON.
        seconds: time taken by step; not part of the JSON.
    """

    fingerprint: str
    dimension: int
    data: str
    split: str
    instruction: str
    depth: int
    settings: tuple[SettingResult, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    rerank: RerankReport | None = None
    mixed: Mixed | None = None
    runs: Mapping[tuple[str, str], Run] = field(default_factory=dict, repr=False, compare=False)
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

    def to_json(self) -> str:
        """The result as JSON: the same bytes for the same model and data, so without times, dates and paths."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "model": {"fingerprint": self.fingerprint, "dimension": self.dimension},
            "data": {"fingerprint": self.data, "split": self.split, "left_out": self.left_out},
            "instruction": self.instruction,
            "depth": self.depth,
            "settings": [asdict(one, dict_factory=_present) for one in self.settings],
            "averages": self.averages,
        }
        if self.rerank is not None:
            content["rerank"] = self.rerank.to_json()
        if self.diagnosis is not None:
            content["modality"] = {str(self.mixed_pool): asdict(self.diagnosis)}
        if self.mixed is not None and (how := self.mixed.to_json()):
            content["search"] = {self.mixed.name: how}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    def table(self) -> Table:
        """A row for each setting and two for the averages, scores rounded to 0.1, for `rich` to print in 80 columns."""
        from rich import box
        from rich.table import Table

        title = f"{self.split} queries, model {self.fingerprint[:12]}"
        caption = _CAPTION
        if self.rerank is not None:
            title += f", reranked by {self.rerank.fingerprint[:12]}"
            caption += f" The first {self.rerank.depth} results are in the order of cosine + w * P(Yes)."
        table = Table(title=title, caption=caption, box=box.SIMPLE, padding=(0, 1, 0, 0))
        names = ("setting", "task", "metric") if self.rerank is None else ("setting", "metric")  # the weights take the room
        for name in names:
            table.add_column(name)
        for pool in self.pools:
            table.add_column(pool.replace("-", "-\n"), justify="right", style="bold")
            table.add_column("chance", justify="right", style="dim")
        if self.mixed_pool is not None:
            table.add_column("modality@1", justify="right")
        if self.rerank is not None:
            table.add_column("w", justify="right", no_wrap=True)
        for one in self.settings:
            about = {"setting": one.setting, "task": short(one.task), "metric": one.main_metric}
            table.add_row(*(about[name] for name in names), *self._cells(one))
        table.add_section()
        for name, label in (("main", "above"), ("hit@5", "hit@5")):
            cells = [cell for pool in self.pools for cell in (f"{self.averages[pool][name]:.1f}", "")]
            table.add_row("average", *[""] * (len(names) - 2), label, *cells, style="bold")
        return table

    def _cells(self, one: SettingResult) -> list[str]:
        cells = []
        for pool in self.pools:
            found = one.pools[pool]
            cells += [f"{found.metrics[one.main_metric]:.1f}", f"{found.chance[one.main_metric]:.2g}"]
        if self.mixed_pool is not None:
            cells.append(f"{one.pools[self.mixed_pool].metrics['modality_accuracy@1']:.1f}")
        if self.rerank is not None:
            cells.append(f"{self.rerank.weights[one.setting]:g}")
        return cells

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
