"""`umr train`: run one training stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file that describes the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings in place of the recipe's, such as training.steps=100.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/ and the recipe's name.")] = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart/--resume", help="Throw an earlier run in that folder away, or go on with it (a finished one is left as it is)."
        ),
    ] = False,
) -> None:
    """Train by a recipe. Several devices: `torchrun --nproc-per-node N -m umr train ...`."""
    from umr.cli import console
    from umr.losses.gathered import rank
    from umr.training.run import train as run

    console.hush_transformers()
    model = run(recipe, overrides or [], out, restart)
    if rank() == 0:
        console.say(f"{model}: the trained model")
