"""Mined negatives for the training queries of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from umr.data.benchmark import Benchmark
from umr.errors import RecipeError

if TYPE_CHECKING:
    from umr.mining.negatives import NegativeTable


def open_mined(path: str | None, tree: Benchmark) -> NegativeTable | None:
    """The table in a folder that `umr mine` wrote; `None` for no folder.

    Raises:
        RecipeError: it was mined from other data.
    """
    if path is None:
        return None
    from umr.mining.negatives import NegativeTable
    from umr.mining.queries import training_data

    table = NegativeTable(Path(path))
    if table.data != training_data(tree):  # what is wrong there may be right here
        raise RecipeError(f"data: {path} was mined from other data than what is in {tree.root} now; mine that")
    return table
