"""`umr eval`: measure a model on a benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Pool(StrEnum):
    """What a query searches: the candidates of its own task, or those of all tasks."""

    local = "local"
    everything = "global"


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
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
) -> None:
    """Measure a model: hit rate, recall, nDCG and MRR for every task, on local and global pools."""
    from umr import Embedder
    from umr import evaluate as measure
    from umr.cli import console
    from umr.files import write_text

    console.hush_transformers()
    names = [name.strip() for name in tasks.split(",") if name.strip()] if tasks is not None else None
    embedder = Embedder.load(model, batch_tokens=batch_tokens)
    result = measure(embedder, benchmark, pools=[kind.value for kind in pool or Pool], tasks=names, split=split, work_dir=work)
    console.show(result.table())
    if json is not None:
        write_text(json, result.to_json())
