"""`umr demo`: the whole story, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to; what an earlier run finished there is used again.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the data, the weights and the training.")] = 0,
) -> None:
    """Make data, train a tiny retriever and a reranker on it, evaluate every stage, and search: all offline, in minutes."""
    from umr.cli import console
    from umr.demo import run_demo

    console.hush_transformers()
    run_demo(out, seed, _show)


def _show(thing: object) -> None:
    """A line or a table at once, also into a file that someone watches."""
    import sys

    from umr.cli import console

    if isinstance(thing, str):
        console.say(thing)
    else:
        console.show(thing)
    sys.stdout.flush()
