"""`umr check-data`: find what is wrong with a benchmark folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check_data(
    folder: Annotated[Path, typer.Argument(help="Benchmark folder: an M-BEIR tree, or a text set in BEIR's or MTEB's layout.")],
    split: Annotated[list[str] | None, typer.Option(help="Split to look at. May be repeated. Default: all that are there.")] = None,
) -> None:
    """Report malformed lines, missing images, and answers that no pool holds; exit code 1 if there are any. Names sampled pools, too."""
    from umr.cli import console
    from umr.data.benchmark import open_benchmark
    from umr.errors import DataError
    from umr.evaluation.stamps import differing_sizes

    tree = open_benchmark(folder, on_error="skip")
    splits = split or [name for name in ("train", "val", "test") if tree.settings(name)]
    if not splits:
        raise DataError(f"{folder}: has no queries for train, val or test")
    fine = True
    for name in splits:
        report = tree.check(name)
        sizes = differing_sizes(tree, name)
        console.say("\n".join([f"{name}:", str(report), *(f"pool size differs: {line}" for line in sizes), ""]))
        fine = fine and report.ok
    if not fine:
        raise typer.Exit(1)
