"""Stages that measure: a model on a benchmark, and each query's hits beside the averages."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from umr.data.mbeir import MBeir
from umr.evaluation import EvaluationResult, evaluate
from umr.evaluation.choosing import choose_weights
from umr.evaluation.declarations import METRICS, main_metric
from umr.evaluation.metrics import judge
from umr.evaluation.rerank import Reranking
from umr.evaluation.weights import Weights
from umr.files import write_bytes, write_text
from umr.models.embedder import Embedder
from umr.models.reranker import Reranker

HITS = "hits.parquet"


def measure(config: dict[str, Any], out: Path, vectors: Path) -> dict[str, Any]:
    """Evaluate as an `eval` stage says; see `umr.pipelines.stages.EvalStage`.

    Returns:
        Averages in percent: `local`, `global`, `local hit@5`, `global hit@5`.
    """
    benchmark, depth = MBeir(Path(config["benchmark"]), config["on_error"]), config["depth"]
    rerank = None
    if config["reranker"] is not None:
        weights = Weights.load(Path(config["weights"])) if config["weights"] is not None else config["weight"]
        rerank, depth = Reranking(_reranker(config), config["rerank_depth"], weights), max(depth, config["rerank_depth"])
    result = evaluate(
        _embedder(config),
        benchmark,
        pools=config["pools"],
        tasks=config["tasks"],
        split=config["split"],
        work_dir=vectors,
        instruction=config["instruction"],
        depth=depth,
        rerank=rerank,
    )
    write_hits(result, benchmark, out / HITS)
    write_text(out / "result.json", result.to_json())
    averages = result.averages
    return {pool: averages[pool]["main"] for pool in averages} | {f"{pool} hit@5": averages[pool]["hit@5"] for pool in averages}


def choose(config: dict[str, Any], out: Path, vectors: Path) -> dict[str, Any]:
    """Choose fusion weights as a `fuse` stage says; see `umr.pipelines.stages.FuseStage`."""
    weights = choose_weights(
        _embedder(config),
        _reranker(config),
        MBeir(Path(config["benchmark"]), config["on_error"]),
        config["split"],
        depth=config["depth"],
        pools=config["pools"],
        work_dir=vectors,
        tasks=config["tasks"],
        instruction=config["instruction"],
    )
    weights.save(out / "weights.json")
    return {"default": weights.default, **weights.weights}


def _embedder(config: dict[str, Any]) -> Embedder:
    return Embedder.load(config["model"], dtype=config["dtype"], batch_tokens=config["batch_tokens"])


def _reranker(config: dict[str, Any]) -> Reranker:
    return Reranker.load(config["reranker"], dtype=config["dtype"], batch_tokens=config["batch_tokens"])


def write_hits(result: EvaluationResult, benchmark: MBeir, path: Path) -> None:
    """Write what each query found: Parquet with qid, setting, pool, hit@1, hit@5 and the setting's main metric, each 0 or 1."""
    tables = []
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
        tables.append(pa.table(columns))
    buffer = io.BytesIO()
    pq.write_table(pa.concat_tables(tables).unify_dictionaries(), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())
