"""`umr eval`: measure a model on a benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from umr.data.benchmark import PoolName


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
    benchmark: Annotated[
        list[Path], typer.Option(help="Benchmark folder: an M-BEIR tree, or a text set in BEIR's or MTEB's layout. May be repeated.")
    ],
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
    prompts: Annotated[
        str | None, typer.Option(help="Ask the reranker by these prompts: a YAML file, or zero-shot for those of this package.")
    ] = None,
    rerank_depth: Annotated[int | None, typer.Option(min=1, help="Results of each query to rerank. Default: 50.")] = None,
    weight: Annotated[
        float | None, typer.Option(min=0, help="Order reranked results by cosine + WEIGHT * P(Yes). Default: 1, unless weights are given.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="File of weights by task, which --choose-weights wrote.")] = None,
    weights_of_another_model: Annotated[
        bool, typer.Option("--weights-of-another-model", help="Take --weights although they were chosen for another model.")
    ] = False,
    choose_weights: Annotated[
        Path | None, typer.Option(help="Choose weights on the queries of this split (val, not test), write them there, and use them.")
    ] = None,
    modality_filter: Annotated[
        bool, typer.Option("--modality-filter", help="Of the global pool, rank only candidates of the modality that a task looks for.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Add offsets by modality to scores in the global pool: a file that umr calibrate wrote.")
    ] = None,
    heat_map: Annotated[Path | None, typer.Option(help="Draw which modalities come first in the global pool into this PNG file.")] = None,
) -> None:
    """Measure a model: hit rate, recall, nDCG and MRR for every task, and which modalities come first in the global pool."""
    from umr import Embedder
    from umr.cli import console
    from umr.data.benchmark import open_benchmark
    from umr.errors import RecipeError
    from umr.evaluation.calibration import Calibration
    from umr.evaluation.several import evaluate_each, to_json
    from umr.evaluation.tables import modality_table
    from umr.files import write_text

    options = {"--rerank-depth": rerank_depth, "--weight": weight, "--weights": weights, "--choose-weights": choose_weights}
    _check(rerank, {"--prompts": prompts, **options})
    if weights_of_another_model and weights is None:
        raise RecipeError("--weights-of-another-model has no effect without --weights; leave it out")
    pools: list[PoolName] = [kind.value for kind in pool or Pool]
    if heat_map is not None and "global" not in pools:
        raise RecipeError("--heat-map has no effect without the global pool; leave it out, or search the global pool")
    if choose_weights is not None and len(benchmark) > 1:
        raise RecipeError("--choose-weights takes one --benchmark; choose on each, and give the weights with --weights")
    console.hush_transformers()
    trees = [open_benchmark(path) for path in benchmark]
    names, offsets = names_of(tasks), Calibration.load(calibration) if calibration is not None else None
    embedder = Embedder.load(model, dtype=dtype.value, batch_tokens=batch_tokens)
    plan = None
    if rerank is not None:
        from umr.evaluation.choosing import choose_weights as choose
        from umr.evaluation.rerank import Reranking
        from umr.evaluation.weights import Weights
        from umr.models.reranker import Reranker

        known = Weights.load(weights) if weights is not None else None
        reranker, depth = Reranker.load(rerank, template=prompts, dtype=dtype.value, batch_tokens=batch_tokens), rerank_depth or 50
        if prompts is not None:
            console.say(f"answers compared: {reranker.answers}")
        if choose_weights is not None:
            known = choose(embedder, reranker, trees[0], split, depth=depth, pools=pools, work_dir=work, tasks=names)
            known.save(choose_weights)
        plan = Reranking(reranker, depth, known or (1.0 if weight is None else weight), weights_of_another_model)
    results = evaluate_each(
        embedder,
        trees,
        pools=pools,
        tasks=names,
        split=split,
        work_dir=work,
        depth=max(50, rerank_depth or 0),
        rerank=plan,
        modality_filter=modality_filter,
        calibration=offsets,
    )
    for result in results.values():
        console.show(result.table())
        if result.mixed_pool is not None:
            console.show(modality_table(result))
    if heat_map is not None:
        from umr.evaluation.charts import heat_map as draw

        draw(next((one for one in results.values() if one.mixed_pool is not None), result), heat_map)
    if json is not None:
        write_text(json, to_json(results))


def names_of(tasks: str | None) -> list[str] | None:
    """Names of tasks from a list with commas; `None` stays."""
    return [name.strip() for name in tasks.split(",") if name.strip()] if tasks is not None else None


def _check(rerank: str | None, options: dict[str, object]) -> None:
    """Refuse options that would have no effect, or that exclude each other."""
    from umr.errors import RecipeError

    given = [name for name, value in options.items() if value is not None]
    if rerank is None and given:
        raise RecipeError(f"{given[0]} has no effect without --rerank; leave it out, or name a reranker")
    where = [name for name in given if name not in ("--rerank-depth", "--prompts")]
    if len(where) > 1:
        raise RecipeError(f"{' and '.join(where)} each say where weights come from; give one of them")
