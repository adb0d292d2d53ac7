"""`umr run`: run a pipeline of stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from umr.pipelines import Options, Pipeline


def run(
    pipeline: Annotated[Path, typer.Argument(help="YAML file that describes the stages.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Variables, and keys of stages, such as seed=1 or stages.hard.training.steps=10."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the pipeline. Default: the file's own, or runs/ and its name.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Run this stage and all that depend on it again, from scratch.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone; what it uses must be finished.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run and why, and what is missing; start nothing.")] = False,
) -> None:
    """Run a chain of stages: finished ones are skipped, changed ones run again, broken ones go on where they stopped."""
    from umr.cli import console
    from umr.pipelines.pipeline import Mistakes, load
    from umr.pipelines.runner import Options

    try:
        checked, options = load(pipeline, changes, out), Options(start, only)
        if dry_run:
            _dry_run(checked, options)
        else:
            _run(checked, options)
    except Mistakes as mistakes:
        for line in mistakes.lines:
            console.fail(line)
        raise typer.Exit(1) from mistakes


def _dry_run(pipeline: Pipeline, options: Options) -> None:
    from umr.cli import console
    from umr.pipelines.pipeline import Mistakes
    from umr.pipelines.runner import missing_for, planned

    decisions = planned(pipeline, options)
    rows = ((name, pipeline.step(name).kind, decision.action, decision.reason) for name, decision in decisions.items())
    console.table(("stage", "kind", "plan", "why"), rows)
    if lines := missing_for(pipeline, decisions):
        raise Mistakes(lines)


def _run(pipeline: Pipeline, options: Options) -> None:
    from umr.cli import console
    from umr.losses.gathered import rank
    from umr.pipelines.report import table
    from umr.pipelines.runner import run

    console.hush_transformers()
    manifests = run(pipeline, options, _tell)
    if rank() == 0:
        console.show(table(manifests))
        console.say(f"{pipeline.folder / 'report.html'}: the report")


def _tell(line: str) -> None:
    """A line at once, also into a file that someone watches."""
    import sys

    from umr.cli import console

    console.say(line)
    sys.stdout.flush()
