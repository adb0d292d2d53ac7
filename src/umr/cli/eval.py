"""`umr eval`: measure a model on a benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from umr.cli.crew import Ray, Threads, Workers


class Pool(StrEnum):
    """What a query searches: the candidates of its own task, or those of all tasks."""

    local = "local"
    everything = "global"


class Dtype(StrEnum):
    """Precision of models."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Order(StrEnum):
    """What decides in a run file whose ranks and scores disagree."""

    rank = "rank"
    score = "score"


class OnError(StrEnum):
    """What is done about unusable lines and missing images."""

    fail = "fail"
    skip = "skip"


def evaluate(
    benchmark: Annotated[
        list[Path], typer.Option(help="Benchmark folder: an M-BEIR tree, or a text set in BEIR's or MTEB's layout. May be repeated.")
    ],
    model: Annotated[str | None, typer.Option(help="Model folder or hub id. Left out with --run.")] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            help="In place of a model: score this run file, of TREC's 6 columns or UniIR's 7, over the one --pool. May be repeated."
        ),
    ] = None,
    pool: Annotated[
        list[Pool] | None, typer.Option(help="Candidates to search: each task's own, or those of all. May be repeated. Default: both.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Task names separated by commas. Default: all.")] = None,
    split: Annotated[str, typer.Option(help="Which queries.")] = "test",
    order: Annotated[
        Order | None, typer.Option(help="Of run files in which ranks and scores disagree: what decides. By default that is an error.")
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="Wording: first, seeded, random-SEED, wording-PLACE, none, or all (mean and deviation). Default: first."),
    ] = None,
    own_positives: Annotated[
        bool, typer.Option("--own-positives", help="Count right answers of the query's own dataset only; see docs/mbeir.md.")
    ] = False,
    on_error: Annotated[OnError, typer.Option(help="Unusable lines and missing images: fail, or leave out and say so.")] = OnError.fail,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file, too.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for all files: JSON, scores by query, run files, UniIR's table.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for the vectors, which a later run uses again. Default: runs/eval.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Precision of the models. Default: float32.")] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
    workers: Workers = None,
    threads: Threads = None,
    ray: Ray = None,
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
    memory: Annotated[
        str | None,
        typer.Option(help="Search within this much memory, such as 8GiB; reads the vectors more than once if it must. Default: no limit."),
    ] = None,
    heat_map: Annotated[Path | None, typer.Option(help="Draw which modalities come first in the global pool into this PNG file.")] = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            help="Folder for quality against bytes and time: shorter vectors, int8 and signs, from the same vectors. Times are measured."
        ),
    ] = None,
) -> None:
    """Measure a model, or score run files: hit rate, recall, nDCG and MRR by task, and which modalities come first in the global pool."""
    from umr.cli.evaluating import Asked, check, measure, score_files

    if model is None and run is None:
        raise typer.BadParameter("Missing option '--model' (or '--run', to score run files)")
    asked = Asked(
        model=model,
        run=run,
        benchmark=benchmark,
        pools=[kind.value for kind in pool] if pool else None,
        tasks=names_of(tasks),
        split=split,
        order=None if order is None else order.value,
        instruction=instruction,
        own_positives=own_positives,
        on_error=on_error.value,
        json=json,
        out=out,
        work=work,
        dtype=None if dtype is None else dtype.value,
        batch_tokens=batch_tokens,
        memory=memory,
        workers=workers,
        threads=threads,
        ray=ray,
        rerank=rerank,
        prompts=prompts,
        rerank_depth=rerank_depth,
        weight=weight,
        weights=weights,
        weights_of_another_model=weights_of_another_model,
        choose_weights=choose_weights,
        modality_filter=modality_filter,
        calibration=calibration,
        heat_map=heat_map,
        curve=curve,
    )
    check(asked)
    (measure if run is None else score_files)(asked)


def names_of(tasks: str | None) -> list[str] | None:
    """Names of tasks from a list with commas; `None` stays."""
    return [name.strip() for name in tasks.split(",") if name.strip()] if tasks is not None else None
