"""What the command writes to the terminal: results on stdout, errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

WIDTH = 160
"""Characters in a line where no terminal says how many there are."""


def say(text: str) -> None:
    """Write one line, or a finished block of lines, to stdout."""
    sys.stdout.write(text + "\n")


def fail(line: str) -> None:
    """Write the one line of an error to stderr."""
    sys.stdout.flush()
    sys.stderr.write(f"umr: error: {line}\n")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; numbers to the right, with a separator in thousands."""
    from rich import box
    from rich.table import Table

    cells = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in rows]
    drawn = Table(box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        drawn.add_column(name, justify="right" if all(row[index][:1].isdigit() for row in cells) else "left")
    for row in cells:
        drawn.add_row(*row)
    show(drawn)


def show(drawing: object) -> None:
    """Write something that rich draws, such as its tables; in a pipe or a file it may be wider than a terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else WIDTH).print(drawing)


def hush_transformers() -> None:
    """Keep transformers' bars over loaded weights off the terminal; those over downloads, which take long, stay."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    wanted = not are_progress_bars_disabled()
    logging.disable_progress_bar()
    if wanted:
        enable_progress_bars()
