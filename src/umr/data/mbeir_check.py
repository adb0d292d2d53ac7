"""Going through a benchmark before it is used: what is there, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umr.data.jsonl import JsonlIndex, Problem
from umr.data.mbeir import MBeir, Setting
from umr.data.mbeir_pool import Pool
from umr.data.mbeir_queries import Queries
from umr.data.mbeir_records import did_list, media_path
from umr.data.qrels import qrels_lines
from umr.errors import DataError
from umr.progress import track

_SHOWN = 5
_REPORT_FROM_LINES = 100_000


@dataclass
class Report:
    """What `check` found; `str(report)` is for people.

    Attributes:
        counts: `"queries"`, `"candidates"`, `"images and videos"` looked for, `"judgements"` above zero, `"positives"`, and
            `"positives in the global pool only"`, which are no fault: M-BEIR's OVEN and InfoSeek have them.
        problems: lines with a fault, file and line in each.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def problem_counts(self) -> Counter[str]:
        """How many problems there are of each kind."""
        return Counter(problem.kind for problem in self.problems)

    def add(self, kind: str, path: Path, line: int, what: str) -> None:
        """Note a fault."""
        self.problems.append(Problem(kind, path, line, what))

    def __str__(self) -> str:
        lines = [f"{count} {name}" for name, count in self.counts.items()]
        for kind, count in sorted(self.problem_counts.items()):
            lines.append(f"{kind}: {count}")
            shown = [problem for problem in self.problems if problem.kind == kind][:_SHOWN]
            lines += [f"  {problem}" for problem in shown]
            if count > len(shown):
                lines.append(f"  ... and {count - len(shown)} more")
        return "\n".join([*lines, "nothing wrong" if self.ok else f"{len(self.problems)} problems"])


def check(tree: MBeir, split: str, settings: Sequence[Setting | str] | None = None, images: bool = True) -> Report:
    """Look at every line of a split: malformed records, missing media, positives outside the pools, judgements of unknown ids.

    Args:
        tree: the benchmark; its `on_error` decides whether the first problem is raised or all are collected.
        split: `"train"`, `"val"` or `"test"`.
        settings: which settings; by default all of the split.
        images: whether to look for images and videos on disk. They are not decoded.

    Raises:
        DataError: the first problem, with file and line, where `tree.on_error` is `"fail"`; or a file is missing.
    """
    return _Check(tree, images).run(split, settings)


class _Check:
    def __init__(self, tree: MBeir, images: bool) -> None:
        self.tree, self.images = tree, images
        self.report = Report()
        self.seen: set[Path] = set()

    def run(self, split: str, settings: Sequence[Setting | str] | None) -> Report:
        everywhere = self.tree.global_pool(split) if split == "train" or self.tree.global_pool_path(split).is_file() else None
        if split == "train":
            queries = self.tree.train_queries(settings)
            self._pool(self.tree.train_pool())
            self._queries(queries, everywhere, None)
            return self.report
        chosen = self.tree.settings(split) if settings is None else settings
        if not chosen:
            raise DataError(f"{self.tree.root}: has no queries for split {split!r}")
        for setting in chosen:
            pool, queries = self.tree.pool(setting, split), self.tree.queries(setting, split)
            self._pool(pool)
            self._queries(queries, pool, everywhere)
            self._qrels(setting, split, queries, pool, everywhere)
        if everywhere is not None:
            self._problems(everywhere.index)
        return self.report

    def _complain(self, kind: str, path: Path, line: int, what: str) -> None:
        problem = Problem(kind, path, line, what)
        if self.tree.on_error == "fail":
            raise DataError(str(problem))
        self.report.problems.append(problem)

    def _problems(self, index: JsonlIndex) -> bool:
        """Take over what an index left out; whether the file is new to the report."""
        new = index.path not in self.seen
        if new:
            self.seen.add(index.path)
            self.report.problems += index.problems
        return new

    def _pool(self, pool: Pool) -> None:
        if self._problems(pool.index):
            self.report.counts["candidates"] += len(pool)
            self._media(pool.index)

    def _media(self, index: JsonlIndex) -> None:
        if not self.images:
            return
        lines = index.numbered()
        if len(index) >= _REPORT_FROM_LINES:
            lines = track(lines, f"checking {index.path.name}", len(index), "lines")
        for line, record in lines:
            path = media_path(record, self.tree.root)
            if path is not None:
                self.report.counts["images and videos"] += 1
                if not path.is_file():
                    self._complain("missing media", index.path, line, f"{path} does not exist")

    def _queries(self, queries: Queries, pool: Pool | None, everywhere: Pool | None) -> None:
        for index in queries.indexes:
            if not self._problems(index):
                continue
            self.report.counts["queries"] += len(index)
            self._media(index)
            for line, record in index.numbered():
                self._dids(did_list(record.get("pos_cand_list")), index.path, line, pool, everywhere)
        for place in range(len(queries)):
            queries[place]  # its instruction and its task can be told

    def _dids(self, dids: tuple[str, ...], path: Path, line: int, pool: Pool | None, everywhere: Pool | None) -> None:
        self.report.counts["positives"] += len(dids)
        if pool is None:
            return
        outside = [did for did, row in zip(dids, pool.find(dids), strict=True) if row < 0]
        for did in outside:
            if everywhere is not None and did in everywhere:
                self.report.counts["positives in the global pool only"] += 1
            else:
                self._complain("positive outside pool", path, line, f"positive {did} is in no pool of this split")

    def _qrels(self, setting: Setting | str, split: str, queries: Queries, pool: Pool, everywhere: Pool | None) -> None:
        path = self.tree.qrels_path(setting, split)
        judgements = self.tree.judgements(setting, split)
        self.report.problems += judgements.problems
        self.report.counts["judgements"] += sum(map(len, judgements.relevant.values()))
        known, malformed = set(queries.ids), {problem.line for problem in judgements.problems}
        for line, cells in qrels_lines(path):
            if line in malformed:
                continue
            if cells[0] not in known:
                self._complain("unknown id", path, line, f"query {cells[0]} is not among the queries")
            elif cells[2] not in pool and not (everywhere is not None and cells[2] in everywhere):
                self._complain("unknown id", path, line, f"candidate {cells[2]} is in no pool of this split")
