"""`umr embed`: any corpus becomes a vector store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from umr.cli.crew import Ray, Threads, Workers, crew_of
from umr.cli.eval import Dtype, OnError


class Side(StrEnum):
    """Which end of a search the items are on."""

    query = "query"
    candidate = "candidate"


def embed(
    corpus: Annotated[Path, typer.Argument(help="Manifest (.jsonl, .parquet), or folder of an M-BEIR tree or a text-retrieval set.")],
    model: Annotated[str, typer.Option(help="Model folder or hub id.")],
    out: Annotated[Path, typer.Option(help="Folder of the vectors, which is made or gone on with.")],
    pool: Annotated[str | None, typer.Option(help="Of an M-BEIR tree: the candidates of this task, or global.")] = None,
    split: Annotated[str | None, typer.Option(help="Of an M-BEIR tree. Default: test.")] = None,
    side: Annotated[Side, typer.Option(help="Embed as queries or as candidates.")] = Side.candidate,
    instruction: Annotated[str | None, typer.Option(help="With --side query: what they ask for, one for all.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Items a piece: what a killed worker loses.")] = 4096,
    on_error: Annotated[
        OnError, typer.Option(help="Items that cannot be opened or rendered: fail, or leave out with a reason.")
    ] = OnError.fail,
    workers: Workers = None,
    threads: Threads = None,
    ray: Ray = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the model.")] = Dtype.float32,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
) -> None:
    """Embed a corpus, by one worker or many. Interrupted, the same command goes on, to the same bytes."""
    from umr.bulk.embed import embed as run
    from umr.cli import console

    console.hush_transformers()
    counts = run(
        corpus,
        model,
        out,
        pool=pool,
        split=split,
        side=side.value,
        instruction=instruction,
        rows=rows,
        on_error=on_error.value,
        crew=crew_of(workers, threads, ray),
        dtype=dtype.value,
        batch_tokens=batch_tokens,
    )
    console.say(f"{out}: {counts.embedded:,} of {counts.items:,} items embedded, {counts.rejected:,} rejected")
