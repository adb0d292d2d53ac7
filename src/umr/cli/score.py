"""`umr score`: have a reranker judge what a retriever finds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umr.cli.crew import Ray, Threads, Workers, crew_of
from umr.cli.eval import Pool


def score(
    model: Annotated[str, typer.Option(help="The retriever: model folder or hub id.")],
    reranker: Annotated[str, typer.Option(help="The teacher: folder or hub id of a reranker.")],
    benchmark: Annotated[Path, typer.Option(help="Benchmark folder: an M-BEIR tree, or a text set in BEIR's or MTEB's layout.")],
    out: Annotated[Path, typer.Option(help="Folder of the score table, which is made, gone on with, or added to.")],
    pool: Annotated[
        list[Pool] | None,
        typer.Option(help="Where candidates are found: each task's own, or those of all. May be repeated. Default: both."),
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Task names separated by commas. Default: all.")] = None,
    split: Annotated[str, typer.Option(help="Which queries: train, val or test.")] = "train",
    depth: Annotated[int, typer.Option(help="Candidates a query and pool.")] = 50,
    fraction: Annotated[float, typer.Option(help="Share of each task's queries.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the draw of that share.")] = 42,
    instruction: Annotated[str, typer.Option(help="Wording of the instruction: the first of each, or a seeded draw.")] = "first",
    prompts: Annotated[
        str | None, typer.Option(help="Ask the reranker by these prompts: a YAML file, or zero-shot for those of this package.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of both models' weights: float32 or bfloat16.")] = "float32",
    work: Annotated[Path, typer.Option(help="Folder for the retriever's vectors, which a later run uses again.")] = Path("runs/eval"),
    workers: Workers = None,
    threads: Threads = None,
    ray: Ray = None,
    batch_tokens: Annotated[int | None, typer.Option(help="Token budget of a batch. Default: by device.")] = None,
) -> None:
    """Write cosines and P(Yes) of the candidates found for each query: what distillation learns from."""
    from umr.cli import console
    from umr.mining.scores_files import Manifest
    from umr.mining.scoring import parse
    from umr.mining.scoring import score as run

    console.hush_transformers()
    given: dict[str, object] = {
        "split": split,
        "depth": depth,
        "fraction": fraction,
        "seed": seed,
        "instruction": instruction,
        "dtype": dtype,
    }
    given |= {"pools": [kind.value for kind in pool or Pool], "batch_tokens": batch_tokens, "prompts": prompts}
    if tasks is not None:
        given["settings"] = [name.strip() for name in tasks.split(",") if name.strip()]
    crew = crew_of(workers, threads, ray)
    table = Manifest.read(run(model, reranker, benchmark, out, parse(given, "umr score"), work, crew))
    rows = [
        (setting, name, counts["lists"], counts["with_positive"], teacher)
        for teacher, settings in table.counts.items()
        for setting, pools in settings.items()
        for name, counts in pools.items()
    ]
    console.table(("setting", "pool", "lists", "with a right answer", "teacher"), rows)
