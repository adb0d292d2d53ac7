"""A comparison at the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from umr.evaluation.modality import MODALITIES, short
from umr.reports.words import difference, p_value, score

if TYPE_CHECKING:
    from rich.table import Table


def tables(content: Mapping[str, Any]) -> Iterator[Table]:
    """For each pool scores, differences and counts; then which modalities come first; then the queries that changed most."""
    from rich import box
    from rich.table import Table

    for name in content["changed"]:
        for pool, found in content["pools"].items():
            yield _pool(content, name, pool, found)
    for pool, matrices in content["modality"].items():
        drawn = Table(title=f"modality of the first result in the {pool} pool, % of queries", box=box.SIMPLE_HEAD)
        for column in ("evaluation", "query", *map(short, MODALITIES)):
            drawn.add_column(column, justify="left" if column in ("evaluation", "query") else "right")
        for evaluation, one in matrices.items():
            for asked, row in one["shares"].items():
                drawn.add_row(evaluation, asked, *(f"{row[kind]:.1f}" for kind in MODALITIES))
        yield drawn
    for name, changed in content["changed"].items():
        drawn = Table(title=f"queries that changed most with {name}", box=box.SIMPLE_HEAD)
        for column in ("", "setting", "pool", "query", "rank before", "after"):
            drawn.add_column(column, justify="right" if column in ("rank before", "after") else "left")
        for way in ("better", "worse"):
            for one in changed[way]:
                drawn.add_row(way, one["setting"], one["pool"], one["qid"], *("-" if rank is None else str(rank) for rank in one["rank"]))
        yield drawn


def _pool(content: Mapping[str, Any], name: str, pool: str, found: Mapping[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    base = content["baseline"]
    drawn = Table(title=f"{name} against {base}, {pool}", box=box.SIMPLE_HEAD)
    for column in ("setting", base, name, "difference", "p", "wins", "losses", "ties"):
        drawn.add_column(column, justify="left" if column == "setting" else "right")
    for row in (*found["settings"], {"setting": "average", **found["average"]}):
        against = row["against"][name]
        if row["setting"] == "average":
            drawn.add_section()
        counts = (f"{against[key]:,}" for key in ("wins", "losses", "ties"))
        scores = (score(row["scores"][one]) for one in (base, name))
        drawn.add_row(row["setting"], *scores, difference(against), p_value(against.get("p_holm", against["p"])), *counts)
    return drawn
