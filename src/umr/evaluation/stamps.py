"""What makes a number differ from the published way of measuring: it is said beside every number it touches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from umr.data.benchmark import Benchmark, Pool, PoolName, Queries
from umr.data.jsonl_scan import Problem
from umr.data.mbeir import MBeir, Setting
from umr.evaluation import published

Stamps: TypeAlias = dict[str, str]
"""Kind of deviation -> details, for one setting and pool."""

POOL_SIZE = "pool size differs"
CANDIDATES = "candidates left out"
QUERIES = "queries left out"
JUDGEMENTS = "judgements left out"
OTHERS = "positives of other datasets not counted"
UNANSWERED = "queries without results"
SHORT = "few results a query"


def data_stamps(benchmark: Benchmark, setting: Setting, split: str, name: str, pool: Pool) -> Stamps:
    """What is unusual about the data of one search.

    Args:
        benchmark: whose.
        setting: the search.
        split: of the queries.
        name: of the pool in results.
        pool: its candidates.
    """
    stamps: Stamps = {}
    expected = published.pool_size(setting.name, name, split)
    if expected is not None and len(pool) != expected:
        stamps[POOL_SIZE] = f"{len(pool):,} candidates in place of {expected:,}"
    judgements = benchmark.judgements(setting, split).problems if isinstance(benchmark, MBeir) else ()
    parts = {CANDIDATES: pool.problems, QUERIES: benchmark.queries(setting, split).problems, JUDGEMENTS: judgements}
    return stamps | {kind: _counted(problems) for kind, problems in parts.items() if problems}


def positive_stamps(benchmark: Benchmark, setting: Setting, split: str) -> Stamps:
    """What `own_positives` takes away from the judgements of a setting."""
    if not isinstance(benchmark, MBeir) or not benchmark.own_positives:
        return {}
    judged = benchmark.judgements(setting, split).relevant
    dropped = sum(map(len, judged.values())) - sum(map(len, benchmark.qrels(setting, split).values()))
    return {OTHERS: f"{dropped:,} positives"} if dropped else {}


def left_out(benchmark: Benchmark, split: str, settings: Sequence[Setting], pools: Sequence[PoolName]) -> dict[str, int]:
    """How many lines were unusable, where the benchmark is read with `on_error="skip"`."""
    parts: dict[str, Sequence[Pool | Queries]] = {
        "queries": [benchmark.queries(setting, split) for setting in settings],
        "local candidates": [benchmark.pool(setting, split) for setting in settings if "local" in pools],
        "global candidates": [benchmark.global_pool(split)] if "global" in pools else [],
    }
    return {name: sum(len(one.problems) for one in opened) for name, opened in parts.items()}


def differing_sizes(benchmark: Benchmark, split: str) -> list[str]:
    """A line for each pool of M-BEIR that has not the published number of candidates."""
    pools = {}
    for setting in benchmark.settings(split) if split != "train" else ():
        for name, path in (("local", benchmark.pool_path(setting, split)), ("global", benchmark.global_pool_path(split))):
            expected = published.pool_size(setting.name, name, split)
            if expected is not None and path.is_file() and path not in pools:
                pool = benchmark.pool(setting, split) if name == "local" else benchmark.global_pool(split)
                pools[path] = len(pool), expected
    return [
        f"{path.name}: {size:,} candidates in place of the published {expected:,}"
        for path, (size, expected) in pools.items()
        if size != expected
    ]


def union(found: Sequence[Stamps]) -> list[str]:
    """The kinds that any of several numbers has, each once."""
    return list(dict.fromkeys(kind for stamps in found for kind in stamps))


def _counted(problems: Sequence[Problem]) -> str:
    counts = Counter(problem.kind for problem in problems)
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
