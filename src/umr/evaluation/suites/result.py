"""What an evaluation on a suite found, as JSON and as a table with published scores beside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from umr import files
from umr.evaluation.metrics import Scores
from umr.evaluation.result import RUN_NAME
from umr.evaluation.suites.protocols import Ranked

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1
_CAPTION = "In percent; chance: random rankings. Published scores are those of papers, not measured here."
Published = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Task, or name of a mean -> system -> metric -> score in percent."""
Sizes = Mapping[str, Mapping[str, int]]
"""Task -> `"queries"` or `"candidates"` -> how many."""


@dataclass(frozen=True)
class RerankSettings:
    """Which reranker ordered how many first results anew, by cosine + weight * P(Yes)."""

    fingerprint: str
    depth: int
    weight: float


@dataclass(frozen=True)
class SuiteTaskResult:
    """Scores of one task in percent.

    Attributes:
        task: its name.
        instruction: what the queries were asked with.
        queries: number of queries.
        candidates: number of candidates, over all galleries where there are such.
        metrics: means over queries.
        searched: the same before reranking; empty where nothing was reranked.
        chance: what random rankings would score.
        left_out: numbers of queries and candidates that were left out since their media are missing.
        values: by metric, one number a query, 0 to 1, in the order of `ranked`; not part of the JSON, as all that follows.
        ranked: what each query found.
    """

    task: str
    instruction: str | None
    queries: int
    candidates: int
    metrics: dict[str, float]
    searched: dict[str, float]
    chance: dict[str, float]
    left_out: dict[str, int]
    values: Mapping[str, Scores] = field(repr=False, compare=False)
    ranked: Ranked = field(repr=False)

    @property
    def qids(self) -> list[str]:
        """Query ids in the order of `values`."""
        return list(self.ranked.dids)

    def trec_lines(self) -> Iterator[str]:
        """Lines `qid Q0 did rank score umr`, ranks from 1; white space in ids becomes `_`."""
        for qid, dids in self.ranked.dids.items():
            for rank, (did, score) in enumerate(zip(dids, self.ranked.scores[qid], strict=True), 1):
                yield f"{'_'.join(qid.split())} Q0 {'_'.join(did.split())} {rank} {score:.9g} {RUN_NAME}\n"


@dataclass(frozen=True)
class SuiteResult:
    """Everything `umr.evaluation.suites.evaluate_suite` reports. Scores are in percent, unrounded.

    Attributes:
        suite: name of the suite.
        fingerprint: of the model.
        dimension: of its vectors.
        data: fingerprint of the annotations.
        main: the metric that published tables show.
        tasks: in the suite's order.
        averages: tasks by name of their mean.
        published: what papers report.
        sizes: of the published tests, where they are certain.
        rerank: what ordered the first results anew; None for a search alone.
    """

    suite: str
    fingerprint: str
    dimension: int
    data: str
    main: str
    tasks: tuple[SuiteTaskResult, ...]
    averages: Mapping[str, tuple[str, ...]]
    published: Published
    sizes: Sizes = field(default_factory=dict)
    rerank: RerankSettings | None = None

    @cached_property
    def means(self) -> dict[str, dict[str, float]]:
        """Plain means over tasks, by name of the mean and metric; those whose tasks all have the metric."""
        found = {one.task: one.metrics for one in self.tasks}
        means = {}
        for name, tasks in self.averages.items():
            metrics = [metric for metric in found[tasks[0]] if all(metric in found[task] for task in tasks)]
            means[name] = {metric: float(np.mean([found[task][metric] for task in tasks])) for metric in metrics}
        return means

    @property
    def left_out(self) -> int:
        """Queries and candidates left out over all tasks."""
        return sum(sum(one.left_out.values()) for one in self.tasks)

    @property
    def other_sizes(self) -> list[str]:
        """Where the data are not those of the published test, such as `"text -> image: 60 queries, not 5,000"`."""
        found = [(one.task, kind, getattr(one, kind), count) for one in self.tasks for kind, count in self.sizes.get(one.task, {}).items()]
        return [f"{task}: {here:,} {kind}, not {count:,}" for task, kind, here, count in found if here != count]

    @property
    def comparable(self) -> bool:
        """Whether the scores may stand beside published ones: nothing was left out, and no size is known to be another."""
        return not self.left_out and not self.other_sizes

    def to_json(self) -> str:
        """The result as JSON: the same bytes for the same model and data, so without times, dates and paths."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "suite": self.suite,
            "model": {"fingerprint": self.fingerprint, "dimension": self.dimension},
            "data": {"fingerprint": self.data},
            "main": self.main,
            "tasks": [_public(one) for one in self.tasks],
            "means": self.means,
            "published": self.published,
            "comparable": self.comparable,
            "other_sizes": self.other_sizes,
        }
        if self.rerank is not None:
            content["rerank"] = asdict(self.rerank)
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    def table(self) -> Table:
        """A row for each task and mean, and under it the published systems; scores rounded to 0.1."""
        from rich import box
        from rich.table import Table

        names = list(dict.fromkeys(name for one in self.tasks for name in one.metrics))
        partial = f", PARTIAL: {self.left_out:,} queries and candidates left out" if self.left_out else ""
        again = f", reranked by {self.rerank.fingerprint[:12]} (first {self.rerank.depth}, w {self.rerank.weight:g})" if self.rerank else ""
        table = Table(
            title=f"{self.suite}, model {self.fingerprint[:12]}{again}{partial}",
            caption=_CAPTION + (f" NOT THE PUBLISHED TEST: {'; '.join(self.other_sizes)}." if self.other_sizes else ""),
            box=box.SIMPLE,
            padding=(0, 1, 0, 0),
        )
        for heading in ("task", "system"):
            table.add_column(heading)
        for heading in ("queries", "candidates", *names):
            table.add_column(heading, justify="right")
        for one in self.tasks:
            counts = f"{one.queries:,}", f"{one.candidates:,}"
            table.add_row(one.task, "this model", *counts, *_cells(names, one.metrics), style="bold")
            if self.rerank is not None:
                table.add_row("", "search alone", "", "", *_cells(names, one.searched))
            table.add_row("", "chance", "", "", *_cells(names, one.chance), style="dim")
            self._add_published(table, one.task, names)
        for mean, metrics in self.means.items():
            table.add_row(f"mean: {mean}", "this model", "", "", *_cells(names, metrics), style="bold")
            self._add_published(table, mean, names)
        return table

    def _add_published(self, table: Table, task: str, names: list[str]) -> None:
        for system, metrics in self.published.get(task, {}).items():
            table.add_row("", system, "", "", *_cells(names, metrics))

    def __str__(self) -> str:
        from rich.console import Console

        out = StringIO()
        Console(file=out, width=140, no_color=True).print(self.table())
        return out.getvalue()

    def write_run_trec(self, folder: Path) -> list[Path]:
        """Write `<suite>_<task>.trec` for every task, in the format trec_eval reads; returns the paths."""
        paths = []
        for one in self.tasks:
            name = "".join(letter if letter.isalnum() else "-" for letter in one.task)
            paths.append(Path(folder) / f"{self.suite}_{name}.trec")
            files.write_text(paths[-1], "".join(one.trec_lines()))
        return paths


def to_json(results: list[SuiteResult]) -> str:
    """One result as it is; several as a list under `"suites"`."""
    if len(results) == 1:
        return results[0].to_json()
    return json.dumps({"format": FORMAT, "suites": [json.loads(one.to_json()) for one in results]}, indent=1, sort_keys=True) + "\n"


def _public(one: SuiteTaskResult) -> dict[str, Any]:
    names = ("task", "instruction", "queries", "candidates", "metrics", "chance", "left_out", *(["searched"] if one.searched else []))
    return {name: getattr(one, name) for name in names}


def _cells(names: list[str], metrics: Mapping[str, float]) -> list[str]:
    return [f"{metrics[name]:.1f}" if name in metrics else "" for name in names]
