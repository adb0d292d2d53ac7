"""`umr compare`: evaluations side by side, query by query."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    evaluations: Annotated[list[Path], typer.Argument(help="Folders that umr eval --out wrote; the others are compared with the first.")],
    json: Annotated[Path | None, typer.Option(help="Write the comparison to this file, too.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write it as an HTML file, too.")] = None,
    benchmark: Annotated[Path | None, typer.Option(help="Folder of the benchmark: the HTML file then shows queries and pictures.")] = None,
) -> None:
    """Compare evaluations of the same queries: intervals, paired test, wins and losses by task, modalities, what changed most."""
    from json import dumps

    from umr.cli import console
    from umr.errors import RecipeError
    from umr.files import write_text
    from umr.reports.comparison import compare as compared
    from umr.reports.comparison_page import html
    from umr.reports.comparison_table import tables
    from umr.reports.looking import Looking
    from umr.reports.saved import load_several
    from umr.reports.stored import benchmark_of

    if benchmark is not None and report is None:
        raise RecipeError("--benchmark has no effect without --report; leave it out")
    loaded = load_several(evaluations)
    content = compared(loaded)
    looking = Looking.at(benchmark_of(loaded[0], benchmark), loaded[0]) if benchmark is not None else None
    for table in tables(content):
        console.show(table)
    console.say(content["note"])
    if json is not None:
        write_text(json, dumps(content, indent=1, sort_keys=True) + "\n")
    if report is not None:
        write_text(report, html(content, looking))
