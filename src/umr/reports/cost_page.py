"""Quality against cost as HTML: plots, and a table with all of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from umr.gallery import table
from umr.reports import cost_plots
from umr.reports.cost_plots import kind_of
from umr.reports.costs import QUERIES, Cost
from umr.reports.pieces import themed
from umr.reports.words import MARK, percent
from umr.store.smaller import RESCORED


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
        "dimensions of the stored vectors, scaled to unit length again. Candidates are kept in fewer bits, queries are not: bytes or signs "
        f"about the mean. Rescored: the first {RESCORED} results or more are put in order by the whole vectors."
    )
    if len(depths) > 1:
        said += " Reranked with the probabilities that are stored; a pair without one counts as No, and the share of known pairs is given."
    if stamps:
        said += f" {MARK} Not measured as published: {', '.join(stamps)}."
    plots = [themed(lambda: _drawn(cost_plots.by_bytes, costs), "scores by bytes of a vector")]
    if len(depths) > 1:
        plots.append(themed(lambda: _drawn(cost_plots.by_depth, costs, depths), "scores by depth of reranking"))
    head = ["dimensions", "kept as", "bytes a candidate", *("search alone" if not depth else f"reranked to {depth}" for depth in depths)]
    return [f"<p>{escape(said)}</p><div class=row>{''.join(plots)}</div>", table(head, _rows(costs, depths, MARK if stamps else ""))]


def _rows(costs: Sequence[Cost], depths: Sequence[int], mark: str) -> list[list[str]]:
    rows = []
    for dimension, kind in dict.fromkeys((one.dimension, kind_of(one)) for one in costs):
        mine = {one.depth: one for one in costs if (one.dimension, kind_of(one)) == (dimension, kind)}
        rows.append([f"{dimension:,}", kind, f"{mine[0].bytes:,}", *(_cell(mine[depth], mark) for depth in depths)])
    return rows


def _cell(one: Cost, mark: str) -> str:
    return percent(one.main) + mark + ("" if one.known == 100 else f" ({one.known:.0f} % known)")


def _drawn(draw: Callable[..., None], *of: Any) -> Any:
    figure, axes = cost_plots.axes()
    draw(axes, *of)
    return figure
