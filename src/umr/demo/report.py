"""The demo's report: one HTML file with tables, curves and the pictures of ten queries with their first five results."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.data.mbeir import MBeir
from umr.evaluation import EvaluationResult
from umr.gallery import card, page, plot

if TYPE_CHECKING:
    from rich.table import Table

QUERIES, RESULTS = 10, 5


def summary(content: dict[str, Any]) -> Table:
    """Averages of each stage, for the terminal."""
    from rich import box
    from rich.table import Table

    table = Table(title="hit@5 of test queries, in percent", box=box.SIMPLE_HEAD)
    for name, justify in (("setting", "left"), *((stage["name"], "right") for stage in content["stages"])):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for setting in content["stages"][0]["local"]:
        table.add_row(setting, *(f"{stage['local'][setting]['hit@5']:.1f}" for stage in content["stages"]))
    table.add_section()
    for pool in ("local", "global"):
        table.add_row(f"average, {pool} pools", *(f"{stage[f'{pool}_average']:.1f}" for stage in content["stages"]), style="bold")
    table.add_row("seconds", *(f"{stage['seconds']:.0f}" for stage in content["stages"]), style="dim")
    return table


def html(content: dict[str, Any], results: dict[str, EvaluationResult], logs: dict[str, list[dict[str, Any]]], world: Path) -> str:
    """The whole report as one self-contained page.

    Args:
        content: what `report.json` holds.
        results: evaluation of each stage, with its rankings.
        logs: training log of each trained stage.
        world: the benchmark, for the pictures.
    """
    last = list(results.values())[-1]
    parts = [
        "<h1>A universal retriever, from nothing</h1>",
        f"<p>Seed {content['seed']}; {escape(content['machine'])}; {content['seconds']:.0f} seconds in all. ",
        "Scores are hit@5 of test queries in percent: the share of queries with a right answer among the first five.</p>",
        *(f"<h2>{pool.capitalize()} pools</h2>{_table(content, pool)}" for pool in ("local", "global")),
        f"<h2>Training</h2>{_curves(content, logs)}",
        f"<h2>Ten queries and what the last stage finds</h2>{_gallery(last, MBeir(world))}",
    ]
    return page("umr demo", parts)


def _table(content: dict[str, Any], pool: str) -> str:
    stages = content["stages"]
    head = "".join(f"<th>{escape(stage['name'])}</th>" for stage in stages)
    rows = []
    for setting, scores in stages[-1][pool].items():
        cells = "".join(f"<td>{stage[pool][setting]['hit@5']:.1f}</td>" for stage in stages)
        rows.append(f"<tr><td>{escape(setting)}</td>{cells}<td>{scores['chance hit@5']:.1f}</td><td>{scores['pool size']}</td></tr>")
    average = "".join(f"<td>{stage[f'{pool}_average']:.1f}</td>" for stage in stages)
    rows.append(f"<tr class=average><td>average</td>{average}<td></td><td></td></tr>")
    return f"<table><tr><th>setting</th>{head}<th>chance</th><th>pool</th></tr>{''.join(rows)}</table>"


def _curves(content: dict[str, Any], logs: dict[str, list[dict[str, Any]]]) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (losses, scores) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    start = 0
    for (stage, log), dash in zip(logs.items(), ("-", "--", "-.", ":"), strict=False):
        losses.plot([start + line["step"] for line in log], [line["loss"] for line in log], dash, label=stage)
        start += log[-1]["step"] if log else 0
    losses.set(xlabel="step", ylabel="InfoNCE loss", title="Training loss")
    losses.legend()
    names = [stage["name"] for stage in content["stages"]]
    for pool, marker in (("local", "o-"), ("global", "s--")):
        scores.plot(names, [stage[f"{pool}_average"] for stage in content["stages"]], marker, label=f"{pool} pools")
    scores.set(ylabel="average hit@5, %", ylim=(0, 100), title="After each stage")
    scores.legend()
    return plot(figure, "training loss and average hit@5 by stage")


def _gallery(result: EvaluationResult, tree: MBeir) -> str:
    rows = []
    for one in result.settings[:QUERIES]:
        setting = next(known for known in tree.settings(result.split) if known.name == one.setting)
        query, pool = tree.queries(setting, result.split)[0], tree.pool(setting, result.split)
        found = result.runs[one.setting, "local"].rankings()[query.qid][:RESULTS]
        cards = [card(query.item, "query", "query")]
        for rank, did in enumerate(found, 1):
            right = did in query.positives
            cards.append(card(pool.item(did), f"{rank} {'✓ right' if right else ''}", "right" if right else ""))
        instruction = escape(query.instructions[0]) if query.instructions else ""
        rows.append(f"<h3>{escape(one.setting)}: {escape(one.task)}</h3><p>{instruction}</p><div class=row>{''.join(cards)}</div>")
    return "".join(rows)
