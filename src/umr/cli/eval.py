"""`umr eval`: measure a model on a benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from umr.evaluation.mbeir import PoolName


class Pool(StrEnum):
    """What a query searches: the candidates of its own task, or those of all tasks."""

    local = "local"
    everything = "global"


class Dtype(StrEnum):
    """Precision of models."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def evaluate(
    model: Annotated[str, typer.Option(help="Model folder or hub id.")],
    benchmark: Annotated[Path, typer.Option(help="Benchmark folder in the M-BEIR layout.")],
    pool: Annotated[
        list[Pool] | None, typer.Option(help="Candidates to search: each task's own, or those of all. May be repeated. Default: both.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Task names separated by commas. Default: all.")] = None,
    split: Annotated[str, typer.Option(help="Which queries.")] = "test",
    json: Annotated[Path | None, typer.Option(help="Write the result to this file, too.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the vectors, which a later run uses again.")] = Path("runs/eval"),
    dtype: Annotated[Dtype, typer.Option(help="Precision of the models.")] = Dtype.float32,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
    rerank: Annotated[str | None, typer.Option(help="Rerank the first results: folder or hub id of a reranker.")] = None,
    rerank_depth: Annotated[int | None, typer.Option(min=1, help="Results of each query to rerank. Default: 50.")] = None,
    weight: Annotated[
        float | None, typer.Option(min=0, help="Order reranked results by cosine + WEIGHT * P(Yes). Default: 1, unless weights are given.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="File of weights by task, which --choose-weights wrote.")] = None,
    choose_weights: Annotated[
        Path | None, typer.Option(help="Choose weights on the queries of this split (val, not test), write them there, and use them.")
    ] = None,
) -> None:
    """Measure a model: hit rate, recall, nDCG and MRR for every task, on local and global pools."""
    from umr import Embedder
    from umr import evaluate as measure
    from umr.cli import console
    from umr.files import write_text

    _check(rerank, {"--rerank-depth": rerank_depth, "--weight": weight, "--weights": weights, "--choose-weights": choose_weights})
    console.hush_transformers()
    names = [name.strip() for name in tasks.split(",") if name.strip()] if tasks is not None else None
    pools: list[PoolName] = [kind.value for kind in pool or Pool]
    embedder = Embedder.load(model, dtype=dtype.value, batch_tokens=batch_tokens)
    plan = None
    if rerank is not None:
        from umr.evaluation.choosing import choose_weights as choose
        from umr.evaluation.rerank import Reranking
        from umr.evaluation.weights import Weights
        from umr.models.reranker import Reranker

        known = Weights.load(weights) if weights is not None else None
        reranker, depth = Reranker.load(rerank, dtype=dtype.value, batch_tokens=batch_tokens), rerank_depth or 50
        if choose_weights is not None:
            known = choose(embedder, reranker, benchmark, split, depth=depth, pools=pools, work_dir=work, tasks=names)
            known.save(choose_weights)
        plan = Reranking(reranker, depth, known or (1.0 if weight is None else weight))
    result = measure(
        embedder,
        benchmark,
        pools=pools,
        tasks=names,
        split=split,
        work_dir=work,
        depth=max(50, rerank_depth or 0),
        rerank=plan,
    )
    console.show(result.table())
    if json is not None:
        write_text(json, result.to_json())


def _check(rerank: str | None, options: dict[str, object]) -> None:
    """Refuse options that would have no effect, or that exclude each other."""
    from umr.errors import RecipeError

    given = [name for name, value in options.items() if value is not None]
    if rerank is None and given:
        raise RecipeError(f"{given[0]} has no effect without --rerank; leave it out, or name a reranker")
    where = [name for name in given if name != "--rerank-depth"]
    if len(where) > 1:
        raise RecipeError(f"{' and '.join(where)} each say where weights come from; give one of them")
