"""`umr index`: a folder becomes a collection that can be searched, and stays up to date with it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from umr.cli.eval import Dtype


class Texts(StrEnum):
    """How texts are given to the model."""

    plain = "plain"
    mbeir = "mbeir"


SHOWN = 10
"""Reasons that are told without --report."""


def index(
    collection: Annotated[Path, typer.Option(help="Folder of the collection; made where there is none.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Folder to index, or a .jsonl or .parquet manifest. Default: the collection's.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model folder or hub id. Default: the collection's.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and index again whenever files change.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Tell of every rejected file, and write report.json to the collection.")] = False,
    hidden: Annotated[
        bool | None, typer.Option("--hidden/--no-hidden", help="Read files whose name, or a folder's, begins with a dot. Default: no.")
    ] = None,
    captions: Annotated[
        bool | None,
        typer.Option("--captions/--no-captions", help="x.txt and x.json beside x.jpg tell about it, or are texts of their own."),
    ] = None,
    chunk: Annotated[int | None, typer.Option(min=100, help="Characters of a text's chunk. Default: 1200.")] = None,
    clip_seconds: Annotated[float | None, typer.Option(min=0.5, help="Length of a video's clips. Default: 10.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What searches ask for by default; for a new collection.")] = None,
    texts: Annotated[
        Texts | None,
        typer.Option(help="mbeir: a capital first and a full stop last, for models trained on M-BEIR's texts. Default: plain."),
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Precision of the model; for a new collection. Default: float32.")] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Area to which the model's images are reduced; for a new collection. Default: the model's own."),
    ] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
) -> None:
    """Index images, texts, PDFs and videos for search: what is new or has changed is embedded, what is gone is forgotten."""
    import warnings

    from rich.markup import escape

    from umr.cli import console
    from umr.cli.mistakes import what_went_wrong
    from umr.errors import UmrError
    from umr.search.indexing import READING, Indexing
    from umr.search.report import NAME
    from umr.search.watching import watch as watching

    console.hush_transformers()
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with a file is said once, in its reason
    job = Indexing.begin(
        folder,
        collection,
        model,
        captions=captions,
        chunk=chunk,
        clip_seconds=clip_seconds,
        hidden=hidden,
        instruction=instruction,
        texts=None if texts is None else texts.value,  # type: ignore[arg-type]  # the values are those of the literal
        dtype=None if dtype is None else dtype.value,
        max_pixels=max_pixels,
        batch_tokens=batch_tokens,
    )
    if changed := [f"{name} {value} instead of {getattr(job.settings, name)}" for name, value in job.told.items() if name in READING]:
        console.say(f"{job.collection}: from now on {', '.join(changed)}; files are read again")

    def once() -> None:
        counts = job.run()
        told = job.report()
        console.say(
            f"{job.collection}: {counts.files:,} files = {counts.indexed:,} indexed + {counts.rejected:,} rejected; {counts.rows:,} rows; "
            f"this time {counts.embedded:,} embedded, {counts.reused:,} reused, {counts.unchanged:,} files unchanged, "
            f"{counts.forgotten:,} forgotten"
        )
        if report:
            told.write(job.collection / NAME)
            if told.rejected or told.partly:
                wrong = (*told.rejected, *told.partly)
                console.table(("file", "what is wrong"), [(escape(record.path), escape(record.reason)) for record in wrong])
            console.say(f"{job.collection / NAME}: all files")
        elif told.rejected:
            console.table(("why rejected", "files"), [(escape(reason), count) for reason, count in told.reasons()[:SHOWN]])
            console.say("--report tells of every file")

    def once_more() -> None:
        try:
            once()
        except UmrError as error:  # a folder that is away for a while comes back
            console.fail(what_went_wrong(error))

    if watch:
        watching(job.source, job.collection, once_more, hidden=job.hidden)
    else:
        once()
