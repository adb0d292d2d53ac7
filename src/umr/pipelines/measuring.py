"""Stages that measure: a model on a benchmark, and each query's hits beside the averages."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from umr.bulk.crew import Crew
from umr.bulk.staff import Staff
from umr.bulk.work import ModelFolder
from umr.data.benchmark import Benchmark, open_benchmark
from umr.errors import RecipeError
from umr.evaluation.calibrating import calibrate
from umr.evaluation.calibration import Calibration
from umr.evaluation.charts import heat_map
from umr.evaluation.choosing import choose_weights
from umr.evaluation.declarations import METRICS, main_metric
from umr.evaluation.metrics import judge
from umr.evaluation.outputs import write_scores
from umr.evaluation.rerank import Reranking
from umr.evaluation.result import EvaluationResult
from umr.evaluation.several import evaluate_each, is_text, text_average, to_json
from umr.evaluation.suites import SuiteReranking, evaluate_suite, open_suite
from umr.evaluation.suites.result import to_json as suites_json
from umr.evaluation.weights import Weights
from umr.files import write_bytes, write_text
from umr.models.embedder import Embedder
from umr.models.reranker import Reranker

HITS, MODALITIES = "hits.parquet", "modality.png"


def measure(config: dict[str, Any], out: Path, vectors: Path) -> dict[str, Any]:
    """Evaluate as an `eval` stage says; see `umr.pipelines.stages.EvalStage`.

    Returns:
        Averages in percent: of an M-BEIR tree `local`, `global`, the same with ` hit@5` and ` hit@1`, and `modality@1` of the global pool
        (a filtered or calibrated pool has its own name in place of `global`); of text-retrieval sets `text`, their mean nDCG@10.
    """
    paths = config["benchmark"] if isinstance(config["benchmark"], list) else [config["benchmark"]]
    own, depth = config["own_positives"], config["depth"]
    benchmarks = [open_benchmark(Path(path), config["on_error"], own_positives=own) for path in paths]
    if sum(not one.one_pool for one in benchmarks) > 1:
        raise RecipeError("benchmark: one M-BEIR tree and any text-retrieval sets make one report; give further trees their own stage")
    rerank = None
    if config["reranker"] is not None:
        weights = Weights.load(Path(config["weights"])) if config["weights"] is not None else config["weight"]
        rerank = Reranking(_reranker(config), config["rerank_depth"], weights, config["weights_of_another_model"])
        depth = max(depth, config["rerank_depth"])
    load = ModelFolder(config["model"], config["dtype"], config["batch_tokens"])
    results = evaluate_each(
        _embedder(config),
        benchmarks,
        pools=config["pools"],
        tasks=config["tasks"],
        split=config["split"],
        work_dir=vectors,
        instruction=config["instruction"],
        depth=depth,
        rerank=rerank,
        modality_filter=config["modality_filter"],
        calibration=Calibration.load(Path(config["calibration"])) if config["calibration"] is not None else None,
        memory=config["memory"],
        staff=Staff.of(Crew.of_every_gpu(), load),
    )
    named = {one.root.resolve().name: one for one in benchmarks}
    write_hits([(result, named[name]) for name, result in results.items()], out / HITS)
    for name, result in results.items():
        write_scores(result, out if len(results) == 1 else out / name)
    write_text(out / "result.json", to_json(results))
    scores = {} if (text := text_average(results)) is None else {"text": text}
    for result in results.values():
        if not is_text(result):
            scores |= _averages(result, out)
    return scores


def _averages(result: EvaluationResult, out: Path) -> dict[str, float]:
    averages = result.averages
    scores = {pool: averages[pool]["main"] for pool in averages}
    for name in ("hit@5", "hit@1"):
        scores |= {f"{pool} {name}": float(np.mean([one.pools[pool].metrics[name] for one in result.settings])) for pool in averages}
    if result.mixed_pool is not None:
        heat_map(result, out / MODALITIES)
        scores["modality@1"] = averages[result.mixed_pool]["modality_accuracy@1"]
    return scores


def choose(config: dict[str, Any], out: Path, vectors: Path) -> dict[str, Any]:
    """Choose fusion weights as a `fuse` stage says; see `umr.pipelines.stages.FuseStage`."""
    weights = choose_weights(
        _embedder(config),
        _reranker(config),
        open_benchmark(Path(config["benchmark"]), config["on_error"]),
        config["split"],
        depth=config["depth"],
        pools=config["pools"],
        work_dir=vectors,
        tasks=config["tasks"],
        instruction=config["instruction"],
        memory=config["memory"],
    )
    weights.save(out / "weights.json")
    return {"default": weights.default, **weights.weights}


def measure_suites(config: dict[str, Any], out: Path, vectors: Path) -> dict[str, Any]:
    """Measure on zero-shot suites as a `suites` stage says; see `umr.pipelines.stages.SuitesStage`.

    Returns:
        Of each suite's averages, or of its tasks where it has none, the metric that published tables show, in percent.
    """
    opened = [
        open_suite(name, Path(folder)) for name, folder in config["suites"].items()
    ]  # before the model: what is missing shows at once
    rerank = None if config["reranker"] is None else SuiteReranking(_reranker(config), config["rerank_depth"], config["weight"])
    embedder = _embedder(config)
    results = [evaluate_suite(embedder, suite, None, vectors, config["on_error"], None, rerank) for suite in opened]
    write_text(out / "result.json", suites_json(results))
    scores: dict[str, float] = {}
    for result in results:
        means = result.means or {task.task: task.metrics for task in result.tasks}
        scores |= {f"{result.suite} {name} {result.main}": one[result.main] for name, one in means.items() if result.main in one}
    return scores


def calibrated(config: dict[str, Any], out: Path, vectors: Path) -> dict[str, Any]:
    """Fit offsets by modality as a `calibrate` stage says; see `umr.pipelines.stages.CalibrateStage`."""
    found = calibrate(
        _embedder(config),
        open_benchmark(Path(config["benchmark"]), config["on_error"]),
        config["split"],
        work_dir=vectors,
        tasks=config["tasks"],
        instruction=config["instruction"],
    )
    found.save(out / "calibration.json")
    return {f"{asked} -> {kind}": offset for asked, offsets in found.offsets.items() for kind, offset in offsets.items()}


def _embedder(config: dict[str, Any]) -> Embedder:
    return Embedder.load(config["model"], dtype=config["dtype"], batch_tokens=config["batch_tokens"])


def _reranker(config: dict[str, Any]) -> Reranker:
    return Reranker.load(config["reranker"], template=config.get("prompts"), dtype=config["dtype"], batch_tokens=config["batch_tokens"])


def write_hits(results: Sequence[tuple[EvaluationResult, Benchmark]], path: Path) -> None:
    """Write what each query found: Parquet with qid, setting, pool, hit@1, hit@5 and the setting's main metric, each 0 to 1."""
    tables = [table for result, benchmark in results for table in _hits(result, benchmark)]
    buffer = io.BytesIO()
    pq.write_table(pa.concat_tables(tables).unify_dictionaries(), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def _hits(result: EvaluationResult, benchmark: Benchmark) -> Iterator[pa.Table]:
    for (setting, pool), run in result.runs.items():
        judged = judge(run.qids, run.rankings(), benchmark.qrels(setting, result.split), result.depth)
        count = len(run.qids)
        columns: dict[str, pa.Array] = {
            "qid": pa.array(run.qids, pa.string()),
            "setting": pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [setting]),
            "pool": pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [pool]),
            "hit@1": pa.array(METRICS["hit@1"](judged), pa.float32()),
            "hit@5": pa.array(METRICS["hit@5"](judged), pa.float32()),
            "main": pa.array(METRICS[main_metric(setting)](judged), pa.float32()),
        }
        yield pa.table(columns)
