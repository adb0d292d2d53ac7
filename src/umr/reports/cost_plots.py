"""Plots of quality against what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from umr.reports.costs import Cost
from umr.store.quantiser import PRECISIONS

_MARKERS = {"fp16": "o", "int8": "s", "binary": "^"}
_COLOURS = {"fp16": "tab:blue", "int8": "tab:orange", "binary": "tab:green"}


def kind_of(cost: Cost) -> str:
    """How vectors are kept, in words."""
    return f"{cost.precision}, rescored" if cost.rescored else cost.precision


def axes(count: int = 1) -> tuple[Any, Any]:
    """A figure with `count` plots beside each other, whose heights are scores."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * count, 3.6), layout="constrained")
    found = figure.subplots(1, count)
    for one in [found] if count == 1 else found:
        one.set(ylabel="average, %")
        one.margins(y=0.12)
        one.grid(alpha=0.3)
    return figure, found


def lines(axes: Any, costs: Sequence[Cost], of: Callable[[Cost], float]) -> None:
    """A line from few to many dimensions for each way to keep vectors, dashed and hollow where the whole ones put the best in order.

    Args:
        axes: where.
        costs: points; those of reranking are left out.
        of: their abscissa.
    """
    for precision in PRECISIONS:
        for rescored in (False, True):
            points = [one for one in costs if (one.precision, one.rescored, one.depth) == (precision, rescored, 0)]
            points.sort(key=lambda one: one.dimension)
            if points:
                look: dict[str, Any] = {"marker": _MARKERS[precision], "color": _COLOURS[precision]}
                look |= {"linestyle": "--", "markerfacecolor": "none"} if rescored else {"linestyle": "-"}
                axes.plot([of(one) for one in points], [one.main for one in points], label=kind_of(points[0]), **look)
    axes.legend(fontsize=8)


def by_bytes(axes: Any, costs: Sequence[Cost]) -> None:
    """Scores by what a search goes through for each candidate, with the dimensions beside the points."""
    lines(axes, costs, lambda one: one.bytes)
    plain = [one for one in costs if one.depth == 0 and not one.rescored]
    for one in plain:
        below = one.precision == "fp16"  # int8 takes the bytes of half the dimensions in fp16
        where = {"xytext": (0, -12 if below else 6), "textcoords": "offset points"}
        axes.annotate(str(one.dimension), (one.bytes, one.main), fontsize=8, ha="center", **where)
    ticks = sorted({one.bytes for one in plain})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45)
    axes.set(xlabel="bytes a candidate; beside the points: dimensions", title="Search alone")


def by_depth(axes: Any, costs: Sequence[Cost], depths: Sequence[int]) -> None:
    """Scores by results reranked, with all dimensions."""
    full = max(one.dimension for one in costs)
    for precision in PRECISIONS:
        points = [one for one in costs if (one.precision, one.dimension, one.rescored) == (precision, full, False)]
        look = {"marker": _MARKERS[precision], "color": _COLOURS[precision]}
        axes.plot([one.depth for one in points], [one.main for one in points], label=precision, **look)
    axes.set_xticks(depths)
    axes.set(xlabel="results reranked", title=f"Reranked, {full:,} dimensions")
    axes.legend(fontsize=8)
