"""The demo's report: one HTML file with tables, curves, what mining and fusion did, and ten queries with their first five results."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from umr.demo import charts
from umr.demo.chain import LAST, Chain
from umr.demo.search import Answer, Search
from umr.evaluation.weights import Weights
from umr.gallery import card, page
from umr.mining import report as mining
from umr.mining.audit import summarise
from umr.pipelines.report import POOLS

if TYPE_CHECKING:
    from rich.table import Table

QUERIES, RESULTS = 10, 5
AVERAGED = ("hit@5", "hit@1")
"""The second tells stages apart where the first is near its ceiling, as it is for the order of the first results."""
MINED, WEIGHTS = "mined", "weights"
"""Stages that have a chapter of their own."""


def summary(content: dict[str, Any]) -> Table:
    """Scores and averages of each stage, for the terminal."""
    from rich import box
    from rich.table import Table

    stages = content["stages"]
    table = Table(title="hit@5 of test queries, in percent", box=box.SIMPLE_HEAD)
    for name, justify in (("setting", "left"), *((stage["name"], "right") for stage in stages)):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for setting in stages[0]["local"]:
        table.add_row(setting, *(f"{stage['local'][setting]['hit@5']:.1f}" for stage in stages))
    table.add_section()
    for pool in POOLS:
        for metric in AVERAGED:
            averages = (f"{_average(stage[pool], metric):.1f}" for stage in stages)
            table.add_row(f"average {metric}, {pool} pools", *averages, style="bold" if metric == AVERAGED[0] else None)
    table.add_row("seconds", *(f"{stage['seconds']:.0f}" for stage in stages), style="dim")
    return table


def _average(scores: dict[str, dict[str, float]], metric: str) -> float:
    """Over settings."""
    return round(sum(one[metric] for one in scores.values()) / len(scores), 2)


def html(content: dict[str, Any], chain: Chain, search: Search, out: Path) -> str:
    """The whole report as one page; it is self-contained but for the link to the audit of mining.

    Args:
        content: what `report.json` holds.
        chain: the finished pipeline.
        search: the finished system, for the pictures.
        out: folder of the report.
    """
    answers = [search.answer(setting) for setting in list(content["stages"][-1]["local"])[:QUERIES]]
    parts = [
        mining.ROW,
        "<h1>A universal retriever, from nothing</h1>",
        f"<p>Seed {content['seed']}; {escape(content['machine'])}; {content['seconds']:.0f} seconds in all. ",
        "Scores are hit@5 of test queries in percent: the share of queries with a right answer among the first five.</p>",
        *(f"<h2>{pool.capitalize()} pools</h2>{_table(content, pool)}" for pool in POOLS),
        f"<h2>Training</h2>{charts.curves(content, chain.logs('infonce'), chain.logs('rerank'))}",
        f"<h2>Mined negatives</h2>{_mined(chain, out)}",
        f"<h2>How much the reranker counts</h2>{_weights(chain)}",
        "<h2>Ten queries and what the last stage finds</h2>",
        "<p>In the order after reranking; what it has moved says which rank it had by recall alone.</p>",
        *map(_row, answers),
    ]
    return page("umr demo", parts)


def _table(content: dict[str, Any], pool: str) -> str:
    stages, rows = content["stages"], []
    for setting, scores in stages[-1][pool].items():
        cells = "".join(f"<td>{stage[pool][setting]['hit@5']:.1f}</td>" for stage in stages)
        rows.append(f"<tr><td>{escape(setting)}</td>{cells}<td>{scores['chance hit@5']:.1f}</td><td>{scores['pool size']}</td></tr>")
    for metric in AVERAGED:
        average = "".join(f"<td>{_average(stage[pool], metric):.1f}</td>" for stage in stages)
        rows.append(f"<tr class=average><td>average {metric}</td>{average}<td></td><td></td></tr>")
    return f"<table>{_head('setting', *(stage['name'] for stage in stages), 'chance', 'pool')}{''.join(rows)}</table>"


def _mined(chain: Chain, out: Path) -> str:
    """The heart of the audit, and where the rest of it is."""
    folder = chain.product(MINED)
    summary = summarise(folder, "cosine")
    link = quote(Path(os.path.relpath(folder / "report.html", out.absolute())).as_posix())
    return (
        "<p>What the instructed model finds for training queries. Candidates that score nearly as high as the right answer are dropped, "
        f"for they may be right as well. <a href='{link}'>The whole audit</a> shows the likeliest of those that were kept.</p>"
        f"{mining.histograms(summary)}<p>Candidates by what became of them, and their share of the setting's in percent.</p>"
        f"{mining.reasons(summary)}"
    )


def _weights(chain: Chain) -> str:
    weights, measured = Weights.load(chain.product(WEIGHTS)), chain.result(LAST)
    rows = []
    for setting in (one["setting"] for one in measured["settings"] if one["setting"] in weights.curve):
        points, alone = weights.curve[setting], measured["rerank"]["alone"][setting]
        chosen = next(one for one in points if one.weight == weights.of(setting))
        scores = (points[0].main, chosen.main, *(alone[pool] for pool in POOLS))
        cells = "".join(f"<td>{score:.1f}</td>" for score in scores)
        rows.append(f"<tr><td>{escape(setting)}</td><td>{chosen.weight:g}</td>{cells}</tr>")
    head = _head("setting", "weight", "validation, without", "validation, with", *(f"test, P(Yes) alone, {pool}" for pool in POOLS))
    return (
        f"<p>The first {weights.depth} results are ordered by cosine + weight × P(Yes). Each setting has the weight that is best on its "
        f"validation queries, by its main metric and mean of the pools.</p>{charts.weight_curves(weights)}"
        f"<table>{head}{''.join(rows)}</table>"
    )


def _head(*names: str) -> str:
    return f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"


def _row(answer: Answer) -> str:
    """A query and its first results as cards."""
    cards = [card(answer.query, "query", "query")]
    for rank, one in enumerate(answer.results[:RESULTS], 1):
        moved = "" if rank == one.recalled else f", was {one.recalled}"
        cards.append(card(one.item, f"{rank}{moved}{' ✓ right' if one.right else ''}", "right" if one.right else ""))
    title = f"<h3>{escape(answer.setting)}: {escape(answer.task)}</h3><p>{escape(answer.instruction)}</p>"
    return f"{title}<div class=row>{''.join(cards)}</div>"
