"""`umr world`: write the synthetic benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer


def world(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    size: Annotated[Literal["mini", "tiny", "small", "medium"], typer.Option(help="How much to write.")] = "tiny",
    seed: Annotated[int, typer.Option(help="The same seed and size give the same bytes.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 1,
) -> None:
    """Write World, a synthetic benchmark of coloured shapes in the M-BEIR layout."""
    from umr.cli import console
    from umr.data.world import generate

    summary = generate(out, size=size, seed=seed, workers=workers)
    header = ("setting", "train", "val", "test", "train pool", "local pool")
    console.table(header, ((name, *(row[key.replace(" ", "_")] for key in header[1:])) for name, row in summary.counts.items()))
    rest = f"{summary.media:,} images and videos, {summary.captions:,} captions, {summary.text_pairs:,} text pairs"
    texts = json.loads((out / "text_retrieval" / "text_retrieval.json").read_text("utf-8"))
    rest += f"; text retrieval: {texts['corpus.jsonl']:,} documents, {texts['queries.jsonl']:,} questions"
    how = "was there already" if summary.reused else f"made in {summary.seconds:.1f} s ({summary.items_per_second:,.0f} items/s)"
    console.say(f"{rest}\n{out}: {how}")
