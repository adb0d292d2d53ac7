"""`umr study`: compare variants of a pipeline over several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from umr.study import Study


def study(
    study: Annotated[Path, typer.Argument(help="YAML file that names the pipeline, the variants and the seeds.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the study. Default: the file's own, or runs/ and its name.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Stages to run at a time; they share the cores.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the distinct stages and name what is missing; start nothing.")] = False,
) -> None:
    """Run a matrix of changes and seeds as one job that can be interrupted, and report means, intervals and significance."""
    from umr.cli import console
    from umr.pipelines.pipeline import Mistakes
    from umr.study import load, run

    try:
        checked = load(study, out)
        if dry_run:
            _dry_run(checked)
        else:
            console.hush_transformers()
            run(checked, workers, _tell)
            console.say((checked.folder / "report.md").read_text("utf-8"))
            console.say(f"{checked.folder / 'report.html'}: the report")
    except Mistakes as mistakes:
        for line in mistakes.lines:
            console.fail(line)
        raise typer.Exit(1) from mistakes


def _dry_run(study: Study) -> None:
    from collections import Counter

    from umr.cli import console
    from umr.pipelines.pipeline import Mistakes
    from umr.study.job import missing_for
    from umr.study.nodes import matrix

    whole = matrix(study)
    counts, done = Counter[str](), Counter[str]()
    for node in whole.nodes.values():
        counts[node.step.name] += 1
        done[node.step.name] += node.done
    console.table(("stage", "distinct", "done"), ((name, count, done[name]) for name, count in counts.items()))
    runs = len(whole.reported)
    console.say(f"{runs} runs of a variant with a seed need {len(whole.nodes)} distinct stages; {done.total()} are done")
    if lines := missing_for(whole):
        raise Mistakes(lines)


def _tell(line: str) -> None:
    """A line at once, also into a file that someone watches."""
    import sys

    from umr.cli import console

    console.say(line)
    sys.stdout.flush()
