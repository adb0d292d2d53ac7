"""Quality against cost as HTML: plots, and a table with all of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from umr.gallery import table
from umr.reports.costs import QUERIES, Cost
from umr.reports.pieces import themed
from umr.reports.smaller import PRECISIONS
from umr.reports.words import MARK, percent

_LINES = {"fp16": "o-", "int8": "s--", "binary": "^:"}


def section(costs: Sequence[Cost], pool: str, stamps: Sequence[str]) -> list[str]:
    """What the evaluation would score if less was kept of each vector, and with fewer pairs reranked.

    Args:
        costs: at least one.
        pool: that was searched.
        stamps: what makes its numbers differ from the published way of measuring.
    """
    depths = sorted({one.depth for one in costs})
    said = (
        f"Mean of the main metrics in percent, {pool} pool{'s' if pool == 'local' else ''}, at most {QUERIES} queries a setting. The first "
        "dimensions of the stored vectors, scaled to unit length again. Candidates are kept in fewer bits, queries are not: int8 with one "
        "scale a vector; binary: signs."
    )
    if len(depths) > 1:
        said += " Reranked with the probabilities that are stored; a pair without one counts as No, and the share of known pairs is given."
    if stamps:
        said += f" {MARK} Not measured as published: {', '.join(stamps)}."
    plots = [themed(lambda: _alone(costs), "scores by bytes of a vector")]
    if len(depths) > 1:
        plots.append(themed(lambda: _reranked(costs, depths), "scores by depth of reranking"))
    head = ["dimensions", "precision", "bytes a candidate", *("search alone" if not depth else f"reranked to {depth}" for depth in depths)]
    return [f"<p>{escape(said)}</p><div class=row>{''.join(plots)}</div>", table(head, _rows(costs, depths, MARK if stamps else ""))]


def _rows(costs: Sequence[Cost], depths: Sequence[int], mark: str) -> list[list[str]]:
    rows = []
    for dimension, precision in dict.fromkeys((one.dimension, one.precision) for one in costs):
        mine = {one.depth: one for one in costs if (one.dimension, one.precision) == (dimension, precision)}
        rows.append([f"{dimension:,}", precision, f"{mine[0].bytes:,}", *(_cell(mine[depth], mark) for depth in depths)])
    return rows


def _cell(one: Cost, mark: str) -> str:
    return percent(one.main) + mark + ("" if one.known == 100 else f" ({one.known:.0f} % known)")


def _alone(costs: Sequence[Cost]) -> Any:
    figure, axes = _axes()
    for precision in PRECISIONS:
        points = sorted((one for one in costs if one.precision == precision and one.depth == 0), key=lambda one: one.bytes)
        axes.plot([one.bytes for one in points], [one.main for one in points], _LINES[precision], label=precision)
        below = precision == "fp16"  # int8 takes nearly the bytes of half the dimensions in fp16
        for one in points:
            where = {"xytext": (0, -12 if below else 6), "textcoords": "offset points"}
            axes.annotate(str(one.dimension), (one.bytes, one.main), fontsize=8, ha="center", **where)
    ticks = sorted({one.bytes for one in costs if one.precision != "int8"})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set(xlabel="bytes a candidate; beside the points: dimensions", title="Search alone")
    axes.legend()
    return figure


def _reranked(costs: Sequence[Cost], depths: Sequence[int]) -> Any:
    figure, axes = _axes()
    full = max(one.dimension for one in costs)
    for precision in PRECISIONS:
        points = [one for one in costs if (one.precision, one.dimension) == (precision, full)]
        axes.plot([one.depth for one in points], [one.main for one in points], _LINES[precision], label=precision)
    axes.set_xticks(depths)
    axes.set(xlabel="results reranked", title=f"Reranked, {full:,} dimensions")
    axes.legend()
    return figure


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set(ylabel="average, %")
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    return figure, axes
