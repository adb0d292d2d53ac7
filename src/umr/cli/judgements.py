"""`umr judgements`: the marks on a collection's hits as a benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Split(StrEnum):
    """What the judgements are for."""

    test = "test"
    val = "val"
    train = "train"


def judgements(
    collection: Annotated[Path, typer.Option(help="Folder of the collection.")],
    out: Annotated[Path, typer.Option(help="Folder for the benchmark, in the M-BEIR layout.")],
    split: Annotated[Split, typer.Option(help="test or val for umr eval, train for umr mine and umr train.")] = Split.test,
    instruction: Annotated[
        str | None, typer.Option(help="Take the queries that were asked with this one. Default: the one of most queries.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the dataset.")] = "collection",
) -> None:
    """Make a benchmark of a collection and of the hits that were marked right or wrong, for umr eval, umr mine and umr train."""
    from umr.cli import console
    from umr.search.benchmark import export
    from umr.search.collection import Collection

    with Collection.open(collection) as opened:
        console.say(str(export(opened, out, split.value, instruction, name)))
    console.say(f"{out}: a benchmark; its split is {split.value}")
