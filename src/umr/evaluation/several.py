"""One model on several benchmarks: an M-BEIR tree and text-retrieval sets in one report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from umr.bulk.staff import Staff
from umr.data.benchmark import Benchmark, PoolName
from umr.data.mbeir_records import is_text_retrieval
from umr.errors import RecipeError
from umr.evaluation.calibration import Calibration
from umr.evaluation.mbeir import evaluate
from umr.evaluation.rerank import Reranking
from umr.evaluation.result import FORMAT, EvaluationResult
from umr.evaluation.searches import POOLS
from umr.evaluation.wording import Wording
from umr.protocols import Encoder

Results = Mapping[str, EvaluationResult]
"""By name of the benchmark's folder, in the order given."""


def evaluate_each(
    encoder: Encoder,
    benchmarks: Sequence[Benchmark],
    pools: Sequence[PoolName] = POOLS,
    tasks: Sequence[str] | None = None,
    split: str = "test",
    work_dir: Path | None = None,
    instruction: Wording = "first",
    depth: int = 50,
    rerank: Reranking | None = None,
    modality_filter: bool = False,
    calibration: Calibration | None = None,
    memory: int | str | None = None,
    staff: Staff | None = None,
) -> dict[str, EvaluationResult]:
    """`umr.evaluation.evaluate` on one benchmark after the other.

    Args:
        encoder: the model.
        benchmarks: readers.
        pools: as of `evaluate`, like all that follow.
        tasks: names of settings of any of the benchmarks; those without any of them are left out.
        split: likewise.
        work_dir: likewise.
        instruction: likewise.
        depth: likewise.
        rerank: likewise.
        modality_filter: of benchmarks that have a global pool.
        calibration: likewise.
        memory: as of `evaluate`.
        staff: likewise.

    Raises:
        RecipeError: two benchmarks of one name, a setting that none has, or a choice about global pools where there are none.
    """
    names = [one.root.resolve().name for one in benchmarks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"two of the benchmarks are called {twice[0]!r}; measure them one at a time, or rename a folder")
    wanted = [_of(one, split, tasks) for one in benchmarks]
    known = [setting for some in wanted for setting in some or ()]
    if len(benchmarks) > 1 and (unknown := [task for task in tasks or () if task not in known]):
        raise RecipeError(f"none of the benchmarks has a task {unknown[0]!r} in split {split!r}")
    if len(benchmarks) > 1 and all(one.one_pool for one in benchmarks) and (modality_filter or calibration is not None):
        raise RecipeError("modality_filter and calibration have no effect: none of the benchmarks has a global pool of its own")
    results = {}
    for name, benchmark, some in zip(names, benchmarks, wanted, strict=True):
        if some == [] and len(benchmarks) > 1:
            continue
        chosen, mixed = tasks if len(benchmarks) == 1 else some, not benchmark.one_pool or len(benchmarks) == 1
        results[name] = evaluate(
            encoder,
            benchmark,
            pools,
            chosen,
            split,
            work_dir,
            instruction,
            depth,
            rerank,
            modality_filter and mixed,
            calibration if mixed else None,
            memory,
            staff,
        )
    return results


def to_json(results: Results) -> str:
    """One result as it is; several as a list under `"benchmarks"`, each with its `"name"`."""
    if len(results) == 1:
        return next(iter(results.values())).to_json()
    content = [{"name": name, **json.loads(one.to_json())} for name, one in results.items()]
    return json.dumps({"format": FORMAT, "benchmarks": content}, indent=1, sort_keys=True) + "\n"


def is_text(result: EvaluationResult) -> bool:
    """Whether it is of a text-retrieval set."""
    return all(is_text_retrieval(one.setting) for one in result.settings)


def text_average(results: Results) -> float | None:
    """Mean nDCG@10 over text-retrieval sets, in percent; `None` where there are none."""
    found = [setting for one in results.values() if is_text(one) for setting in one.settings]
    scores = [pool.metrics[one.main_metric] for one in found for pool in one.pools.values()]
    return sum(scores) / len(scores) if scores else None


def _of(benchmark: Benchmark, split: str, tasks: Sequence[str] | None) -> list[str] | None:
    """The wanted settings that a benchmark has; `None` for all."""
    if tasks is None:
        return None
    there = [setting.name for setting in benchmark.settings(split)]
    return [task for task in tasks if task in there]
