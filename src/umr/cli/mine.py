"""`umr mine`: hard negatives for training queries."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from umr.cli.crew import Ray, Threads, Workers, crew_of
from umr.cli.eval import Dtype


class Metric(StrEnum):
    """What the scores of run files are."""

    cosine = "cosine"


def mine(
    benchmark: Annotated[Path, typer.Option(help="Benchmark folder: an M-BEIR tree, or a text set in BEIR's or MTEB's layout.")],
    out: Annotated[Path, typer.Option(help="Folder for the negatives, the audit and the report.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as max_similarity=0.8 or select=random.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model folder or hub id that searches.")] = None,
    run: Annotated[list[Path] | None, typer.Option(help="TREC run file to mine from instead of a model. May be repeated.")] = None,
    metric: Annotated[Metric | None, typer.Option(help="Declares that the scores of the run files are cosines.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for the vectors, as of umr eval. Default: the output folder.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the models.")] = Dtype.float32,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
    workers: Workers = None,
    threads: Threads = None,
    ray: Ray = None,
    restart: Annotated[bool, typer.Option("--restart/--resume", help="Throw earlier mining there away, or go on with it.")] = False,
) -> None:
    """Mine hard negatives: what a model finds for training queries and is not right, with a reason for every candidate."""
    from umr.cli import console
    from umr.errors import RecipeError
    from umr.mining import mine as mining
    from umr.mining.settings import from_words

    if (model is None) == (not run):
        raise RecipeError("give either --model or --run")
    if model is not None and metric is not None:
        raise RecipeError("--metric has no effect with --model, whose scores are cosines; leave it out")
    if run and work is not None:
        raise RecipeError("--work has no effect with --run, which embeds nothing; leave it out")
    if run and (workers or threads or ray):
        raise RecipeError("--workers, --threads and --ray have no effect with --run, which embeds nothing; leave them out")
    chosen = from_words(settings or [])
    console.hush_transformers()
    if model is not None:
        crew = crew_of(workers, threads, ray)
        mining.mine(model, benchmark, out, chosen, work, restart=restart, dtype=dtype.value, batch_tokens=batch_tokens, crew=crew)
    else:
        mining.mine_run(
            run or [],
            benchmark,
            out,
            chosen,
            metric="cosine" if metric else None,
            restart=restart,
            dtype=dtype.value,
            batch_tokens=batch_tokens,
        )
    console.say(mining.in_short(out))
    console.say(f"{out / mining.REPORT}: what was kept and dropped, and why")
