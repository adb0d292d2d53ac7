"""`umr report`: one evaluation as an HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    result: Annotated[Path, typer.Argument(help="Folder that umr eval --out wrote, or the JSON file in it.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file. Default: report.html beside the result.")] = None,
    benchmark: Annotated[Path | None, typer.Option(help="Folder of the benchmark, for pictures and texts of examples.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of umr eval's vectors, for quality against cost. Takes --benchmark, too.")
    ] = None,
) -> None:
    """Write one HTML file that needs nothing else: scores, modalities, types of error, quality against cost, failures."""
    from umr.cli import console
    from umr.reports.saved import load
    from umr.reports.writing import write_report

    evaluation = load(result)
    target = out or (result if result.is_dir() else result.parent) / "report.html"
    write_report(evaluation, target, benchmark, work)
    console.say(f"{target}: the report")
