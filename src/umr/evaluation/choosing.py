"""Choosing how much a reranker counts, on validation queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from umr.data.benchmark import Benchmark, PoolName, open_benchmark
from umr.errors import RecipeError
from umr.evaluation.declarations import METRICS, main_metric
from umr.evaluation.mbeir import evaluate
from umr.evaluation.metrics import Judged, Qrels, judge
from umr.evaluation.rerank import Reranked, Reranking
from umr.evaluation.searches import POOLS
from umr.evaluation.weights import Point, Weights
from umr.evaluation.wording import Wording
from umr.mining.fill import PairScorer
from umr.protocols import Encoder

GRID = tuple(round(0.1 * step, 1) for step in range(21))
"""0 to 2 in steps of 0.1: the weights that the authors of U-MARVEL try (they do so on the test set)."""
MRR_DEPTH = 50
"""Results a query that MRR looks at, as `evaluate` does by default."""


def choose_weights(
    encoder: Encoder,
    reranker: PairScorer,
    benchmark: Benchmark | Path,
    split: str = "val",
    grid: Sequence[float] = GRID,
    depth: int = 50,
    pools: Sequence[PoolName] = POOLS,
    work_dir: Path | None = None,
    tasks: Sequence[str] | None = None,
    instruction: Wording = "first",
    memory: int | str | None = None,
) -> Weights:
    """Try weights on queries that are not tested on, and keep the best for each setting.

    Best is the highest main metric, mean of the pools. A hit rate over a hundred queries is a coarse measure, and many weights
    share it: among those the highest MRR decides, then the smallest distance to the default. The default, for settings without
    queries in `split`, is the weight with the best mean over the settings by the same rule, the smallest one where all are equal.

    Args:
        encoder: finds candidates.
        reranker: gives P(Yes).
        benchmark: a reader, or the folder of the benchmark.
        split: `"val"` or `"train"`; never `"test"`.
        grid: weights to try.
        depth: results of each query that are reranked.
        pools: pools whose mean counts.
        work_dir: as of `evaluate`: another call with other weights, or an evaluation, asks the reranker nothing again.
        tasks: names of settings; all by default.
        instruction: as of `evaluate`.
        memory: as of `evaluate`.

    Raises:
        RecipeError: `split` is `"test"`, or the grid is empty or goes below 0.
        DataError: unusable data, or no queries of that split.
    """
    if split == "test":
        raise RecipeError("weights chosen on the test queries would make their scores meaningless: choose them on val")
    if not grid or not all(np.isfinite(weight) and weight >= 0 for weight in grid):
        raise RecipeError(f"grid must be weights of 0 or more, not {', '.join(map(str, grid)) or 'none'}")
    plan = Reranking(reranker, depth, 0.0)
    data = open_benchmark(Path(benchmark)) if isinstance(benchmark, str | Path) else benchmark
    result = evaluate(encoder, data, pools, tasks, split, work_dir, instruction, max(depth, MRR_DEPTH), plan, memory=memory)
    assert result.rerank is not None
    curve = {}
    for one in result.settings:
        searches = [found for (setting, _), found in result.rerank.searches.items() if setting == one.setting]
        curve[one.setting] = _curve(searches, data.qrels(one.setting, split), one.setting, sorted(set(grid)), result.depth)
    common = tuple(_mean(points) for points in zip(*curve.values(), strict=True))
    default = _best(common, 0.0)
    return Weights(
        default=default,
        weights={setting: _best(points, default) for setting, points in curve.items()},
        split=split,
        retriever=result.fingerprint,
        reranker=result.rerank.fingerprint,
        data=result.data,
        depth=depth,
        pools=tuple(result.pools),
        curve=curve,
        common=common,
    )


def _curve(searches: Sequence[Reranked], qrels: Qrels, setting: str, grid: Sequence[float], depth: int) -> tuple[Point, ...]:
    """Scores at each weight, means over the searches."""
    judged = [judge(one.recall.qids, one.recall.rankings(), qrels, depth) for one in searches]
    points = []
    for weight in grid:
        orders = [_reordered(known, one, weight) for known, one in zip(judged, searches, strict=True)]
        main, mrr = (100 * float(np.mean([METRICS[name](one) for one in orders])) for name in (main_metric(setting), "mrr"))
        points.append(Point(weight=weight, main=main, mrr=mrr))
    return tuple(points)


def _reordered(judged: Judged, search: Reranked, weight: float) -> Judged:
    order_QK = search.order(weight)
    gain_QK = judged.gain_QK.copy()
    gain_QK[:, : order_QK.shape[1]] = np.take_along_axis(judged.gain_QK[:, : order_QK.shape[1]], order_QK, axis=1)
    return replace(judged, gain_QK=gain_QK)


def _mean(points: Sequence[Point]) -> Point:
    main, mrr = (float(np.mean([getattr(one, name) for one in points])) for name in ("main", "mrr"))
    return Point(weight=points[0].weight, main=main, mrr=mrr)


def _best(points: Sequence[Point], default: float) -> float:
    """Scores are compared to nine digits, so that the order of a sum does not decide."""
    return min(points, key=lambda one: (-round(one.main, 9), -round(one.mrr, 9), abs(one.weight - default), one.weight)).weight
