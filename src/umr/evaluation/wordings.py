"""Measuring with every wording of the instructions: how much a score depends on how a query is put."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from umr.data.benchmark import Benchmark
from umr.errors import RecipeError
from umr.evaluation.result import EvaluationResult
from umr.evaluation.searches import chosen_settings
from umr.evaluation.several import Results
from umr.evaluation.wording import Wording

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Spread:
    """Scores of one thing with each wording, in percent.

    Attributes:
        scores: with the first wording, the second, and so on.
        mean: of them.
        sd: their sample standard deviation; `None` of a single one.
    """

    scores: tuple[float, ...]
    mean: float
    sd: float | None

    @classmethod
    def of(cls, scores: Sequence[float]) -> Spread:
        """Of scores in the order of wordings."""
        return cls(tuple(scores), fmean(scores), stdev(scores) if len(scores) > 1 else None)

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.sd is None else f" ± {self.sd:.1f}")


@dataclass(frozen=True)
class Wordings:
    """The same evaluation with each wording.

    Attributes:
        results: with the first wording, the second, and so on.
        counts: by setting, how many wordings it has. A setting with fewer than others begins anew, and its spread is over its own.
    """

    results: tuple[EvaluationResult, ...]
    counts: dict[str, int]

    def setting(self, setting: str, pool: str) -> Spread:
        """Main metric of a setting."""
        every = [next(one for one in result.settings if one.setting == setting) for result in self.results[: self.counts[setting]]]
        return Spread.of([one.pools[pool].metrics[one.main_metric] for one in every])

    def group(self, group: str, pool: str) -> Spread:
        """Average of a kind of search; see `umr.evaluation.averages.GROUPS`."""
        return Spread.of([result.groups[pool][group].score for result in self.results])

    def content(self) -> dict[str, Any]:
        """What the JSON says: the spreads, and the results they come from."""
        first = self.results[0]
        spread = {
            pool: {
                "settings": {one.setting: vars(self.setting(one.setting, pool)) for one in first.settings},
                "averages": {group: vars(self.group(group, pool)) for group in first.groups[pool]},
                "stamps": first.stamps(pool),
            }
            for pool in first.pools
        }
        return {
            "instruction": "all",
            "wordings": self.counts,
            "spread": spread,
            "results": [json.loads(one.to_json()) for one in self.results],
        }

    def table(self) -> Table:
        """Mean ± standard deviation of each setting and average; 80 columns."""
        from rich import box
        from rich.table import Table

        first = self.results[0]
        pools = [(pool, "".join(f" [{kind}]" for kind in first.stamps(pool))) for pool in first.pools]
        table = Table(title="with each wording of the instructions", caption="Mean ± sample standard deviation.", box=box.SIMPLE)
        for name in ("setting", "wordings", *(pool + stamps for pool, stamps in pools)):
            table.add_column(name.replace("[", "\\["), justify="left" if name == "setting" else "right")
        for one in first.settings:
            table.add_row(one.setting, str(self.counts[one.setting]), *(str(self.setting(one.setting, pool)) for pool in first.pools))
        table.add_section()
        for group in first.groups[first.pools[0]]:
            table.add_row(group, str(len(self.results)), *(str(self.group(group, pool)) for pool in first.pools))
        return table


def evaluate_wordings(
    measure: Callable[[Wording], Results], benchmarks: Sequence[Benchmark], split: str, tasks: Sequence[str] | None = None
) -> dict[str, Wordings]:
    """Measure with the first wording of every query, the second, and so on, as many as any setting has.

    Args:
        measure: an evaluation of the benchmarks with the wording given; it should keep vectors in one `work_dir`, so that candidates
            are embedded once.
        benchmarks: readers.
        split: of the queries.
        tasks: names of settings; all by default.

    Returns:
        By name of the benchmark's folder.

    Raises:
        RecipeError: no query has an instruction.
    """
    counts: dict[str, dict[str, int]] = {}
    for benchmark in benchmarks:
        wanted = None if tasks is None else [one.name for one in benchmark.settings(split) if one.name in tasks]
        if wanted != []:
            counts[benchmark.root.resolve().name] = _counts(benchmark, split, wanted)
    most = max((count for known in counts.values() for count in known.values()), default=0)
    if not most:
        raise RecipeError("no query has an instruction, so that all wordings are one; measure without")
    found = [measure(f"wording-{place}") for place in range(1, most + 1)]
    own = {name: {setting: max(1, count) for setting, count in known.items()} for name, known in counts.items()}
    return {name: Wordings(tuple(one[name] for one in found), own[name]) for name in found[0]}


def to_json(found: dict[str, Wordings]) -> str:
    """One as it is; several as a list under `"benchmarks"`, each with its `"name"`."""
    contents = [{"name": name, **one.content()} for name, one in found.items()]
    content = {"benchmarks": contents} if len(contents) > 1 else {key: value for key, value in contents[0].items() if key != "name"}
    return json.dumps({"format": 1, **content}, indent=1, sort_keys=True) + "\n"


def _counts(benchmark: Benchmark, split: str, tasks: Sequence[str] | None) -> dict[str, int]:
    """How many wordings each setting has."""
    counts = {}
    for setting in chosen_settings(benchmark, split, tasks):
        queries = benchmark.queries(setting, split)
        counts[setting.name] = len(queries[0].instructions)
    return counts
