"""`umr merge`: fold a LoRA adapter into its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    base: Annotated[str, typer.Argument(help="Model folder or hub id that the adapter was trained on.")],
    adapter: Annotated[Path, typer.Argument(help="Folder of the adapter, as peft saves it.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, which must not exist.")],
) -> None:
    """Fold a LoRA adapter into its base, with the learned temperature kept."""
    from umr.cli import console
    from umr.models.merging import merge as run

    console.hush_transformers()
    reasons = run(base, adapter, out)
    console.say(f"{out}: the merged model")
    for reason in reasons:
        console.say(f"not for plain sentence-transformers: {reason}")
