"""What comes first in a mixed pool, as a heat map whose cells say their numbers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from umr.evaluation.modality import MODALITIES, short
from umr.evaluation.tables import mixed
from umr.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from umr.evaluation.result import EvaluationResult

_LIGHT = 55.0  # percent from which a cell is dark enough for white figures


def heat_map(result: EvaluationResult, path: Path) -> None:
    """Write what `figure_of` draws as a PNG. Raises `RecipeError` where the global pool was not searched."""
    buffer = io.BytesIO()
    figure_of(result).savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def figure_of(result: EvaluationResult) -> Figure:
    """Draw the modality of the first result by setting, and by the modality of the query over all settings.

    Cells hold the share of the row in percent, and on the right the number of queries, too. The modality that a setting looks
    for is framed.

    Raises:
        RecipeError: the global pool was not searched.
    """
    from matplotlib.figure import Figure

    pool, whole = mixed(result)
    names: list[str] = [name for name in MODALITIES if any(row[name] for row in whole.matrix.values()) or _is_wanted(result, name)]
    height = 1.6 + 0.34 * max(len(result.settings), 2 * len(whole.matrix))
    figure = Figure(figsize=(4.5 + 1.4 * len(names), height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    rows, wanted = [], []
    for one in result.settings:
        found = one.pools[pool].modality
        assert found is not None
        counts_M = np.array([sum(row[name] for row in found.matrix.values()) for name in names])
        rows.append(100 * counts_M / counts_M.sum())
        wanted.append(names.index(one.task.split(" -> ")[1]) if " -> " in one.task else None)
    _draw(left, np.stack(rows), [f"{one.setting}  {short(one.task)}" for one in result.settings], names)
    for row, column in enumerate(wanted):
        if column is not None:
            _frame(left, row, column)
    left.set_title(f"first result in the {pool} pool, % of queries\nframed: the modality looked for", fontsize=10)
    shares_RM = np.array([[row[name] for name in names] for row in whole.shares.values()])
    counts = [[whole.matrix[asked][name] for name in names] for asked in whole.matrix]
    _draw(right, shares_RM, [f"query: {asked}" for asked in whole.matrix], names, counts)
    right.set_title("by modality of the query\n% and number of queries", fontsize=10)
    return figure


def _is_wanted(result: EvaluationResult, name: str) -> bool:
    return any(one.task.endswith(f"-> {name}") for one in result.settings)


def _draw(axes: Any, shares_RM: np.ndarray, rows: list[str], columns: list[str], counts: list[list[int]] | None = None) -> None:
    axes.imshow(shares_RM, cmap="Greys", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    for row, column in np.ndindex(*shares_RM.shape):
        share = shares_RM[row, column]
        words = f"{share:.1f}" if counts is None else f"{share:.1f}\n{counts[row][column]}"
        axes.text(column, row, words, ha="center", va="center", fontsize=9, color="white" if share > _LIGHT else "black")


def _frame(axes: Any, row: int, column: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, linewidth=2.2, edgecolor="tab:orange"))
