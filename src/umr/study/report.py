"""What a study found: JSON for programs, Markdown and HTML for people, and a plot for each table."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from umr.files import write_bytes, write_text
from umr.gallery import page
from umr.pipelines.report import POOLS, data_uri
from umr.study.definition import Study, Table, Variant
from umr.study.nodes import Matrix, Node
from umr.study.statistics import DRAWS, estimate, sign_flip

Row = dict[str, Any]
BESIDE = ("local hit@1", "modality@1", "text")
"""Measures shown after the averages, without a test: local hit@1, the global pool's modality accuracy, nDCG@10 of text sets."""
NOTE = (
    "Averages of the settings' main metrics in percent: mean over seeds, with the 95 % interval of the mean (Student's t). "
    f"Difference: to the baseline, seed by seed. p: paired sign-flip test over the queries of all seeds, {DRAWS:,} draws; it says whether "
    "these models differ on such queries, the interval of the difference whether other seeds would differ likewise."
)


def write(study: Study, whole: Matrix) -> dict[str, Any]:
    """Write `report.json`, `report.md`, `report.html` and a PNG for each table; of variants without a finished run nothing is said."""
    tables = [_table(table, whole) for table in study.tables]
    content = {"name": study.name, "seeds": list(study.seeds), "metric": study.metric, "note": NOTE, "tables": tables}
    markdown, html = [f"# {study.name}", NOTE], [f"<h1>{escape(study.name)}</h1><p>{escape(NOTE)}</p>"]
    for table in tables:
        title = table["name"] + (f" ({table['paper']})" if table["paper"] else "")
        markdown.append(f"## {title}")
        html.append(f"<h2>{escape(title)}</h2>")
        if table["rows"]:
            figure, file = _plot(table, study.metric), f"{_slug(table['name'])}.png"
            write_bytes(study.folder / file, _png(figure))
            markdown += [_markdown(table, study.metric), f"![means and intervals]({file})"]
            html.append(_html(table, study.metric) + f"<img class=plot alt='means and intervals' src='{data_uri(figure)}'>")
        else:
            markdown.append("No finished run yet.")
            html.append("<p>No finished run yet.</p>")
    write_text(study.folder / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(study.folder / "report.md", "\n\n".join(markdown) + "\n")
    write_text(study.folder / "report.html", page(study.name, html))
    return content


def _table(table: Table, whole: Matrix) -> Row:
    finished = {variant.name: _finished(table, variant, whole) for variant in table.variants}
    base = finished.get(table.baseline, {})
    rows = [_row(table, variant, finished[variant.name], base) for variant in table.variants if finished[variant.name]]
    return {"name": table.name, "paper": table.paper, "baseline": table.baseline, "rows": rows}


def _finished(table: Table, variant: Variant, whole: Matrix) -> dict[int, Node]:
    nodes = {seed: whole.reported[table.name, variant.name, seed] for seed in variant.pipelines}
    return {seed: node for seed, node in nodes.items() if node.done}


def _row(table: Table, variant: Variant, runs: dict[int, Node], base: dict[int, Node]) -> Row:
    row: Row = {"variant": variant.name, "stage": variant.stage, "seeds": list(runs), "paper": variant.paper}
    measures = (*POOLS, *BESIDE)
    scores = {pool: {seed: _average(node, pool) for seed, node in runs.items()} for pool in measures}
    for pool in measures:
        values = [score for score in scores[pool].values() if score is not None]
        if not values:
            continue
        row[pool] = asdict(estimate(values))
        both = [seed for seed in runs if seed in base]
        others = [_average(base[seed], pool) for seed in both]
        pairs = [(scores[pool][seed], other) for seed, other in zip(both, others, strict=True)]
        differences = [own - other for own, other in pairs if own is not None and other is not None]
        if variant.name != table.baseline and differences:
            tested = both if pool in POOLS else []
            hits = [group for seed in tested for group in differences_of_hits(runs[seed], base[seed], pool)]
            row[f"{pool} difference"] = {**asdict(estimate(differences)), "p": sign_flip(hits) if hits else None}
    return row


def _average(node: Node, pool: str) -> float | None:
    done = node.record.finished
    return done.metrics.get(pool) if done is not None else None


def differences_of_hits(one: Node, other: Node, pool: str) -> list[npt.NDArray[np.float64]]:
    """Own hits minus the other's on each query, an array a setting; empty when the two were not asked the same queries."""
    mine, theirs = _hits(one, pool), _hits(other, pool)
    if {setting: hits.keys() for setting, hits in mine.items()} != {setting: hits.keys() for setting, hits in theirs.items()}:
        return []
    return [np.array([hit - theirs[setting][qid] for qid, hit in hits.items()]) for setting, hits in mine.items()]


def _hits(node: Node, pool: str) -> dict[str, dict[str, float]]:
    columns = ["qid", "setting", "pool", "main"]
    table = pq.read_table(node.product.parent / "hits.parquet", columns=columns).to_pydict()
    found: dict[str, dict[str, float]] = {}
    for qid, setting, where, hit in zip(*(table[name] for name in columns), strict=True):
        if where == pool:
            found.setdefault(setting, {})[qid] = hit
    return found


def _cells(row: Row, metric: str) -> list[str]:
    pools = (metric, *(pool for pool in POOLS if pool != metric))
    cells = [row["variant"], str(len(row["seeds"]))]
    for pool in pools:
        cells += [_measure(row.get(pool)), _measure(row.get(f"{pool} difference"), "+"), _p(row.get(f"{pool} difference"))]
        cells.append(f"{row['paper'][pool]:.1f}" if pool in row["paper"] else "")
    for name in BESIDE:
        cells += [_measure(row.get(name)), _measure(row.get(f"{name} difference"), "+")]
    return cells


def _header(metric: str) -> list[str]:
    pools = (metric, *(pool for pool in POOLS if pool != metric))
    names = [name for pool in pools for name in (pool, "difference", "p", f"paper, {pool}")]
    return ["variant", "seeds", *names, *(name for measure in BESIDE for name in (measure, "difference"))]


def _measure(found: Row | None, sign: str = "") -> str:
    if found is None:
        return ""
    half = found["half_width"]
    return f"{found['mean']:{sign}.1f}" + (f" ± {half:.1f}" if half is not None else "")


def _p(found: Row | None) -> str:
    if found is None or found["p"] is None:
        return ""
    return f"{found['p']:.4f}" if found["p"] >= 2 / DRAWS else f"< {2 / DRAWS:.4f}"


def _lines(table: Row, metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows, without the columns that are empty throughout."""
    header, rows = _header(metric), [_cells(row, metric) for row in table["rows"]]
    kept = [place for place in range(len(header)) if any(row[place] for row in rows)]
    return [header[place] for place in kept], [[row[place] for place in kept] for row in rows]


def _markdown(table: Row, metric: str) -> str:
    header, rows = _lines(table, metric)
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _html(table: Row, metric: str) -> str:
    header, rows = _lines(table, metric)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _plot(table: Row, metric: str) -> Any:
    from matplotlib.figure import Figure

    rows = table["rows"]
    figure = Figure(figsize=(7, 1.2 + 0.45 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for shift, pool, marker in ((-0.1, "local", "o"), (0.1, "global", "s")):
        shown = [(place + shift, row[pool]) for place, row in enumerate(rows) if pool in row]
        if shown:
            widths = [found["half_width"] or 0.0 for _, found in shown]
            means = [found["mean"] for _, found in shown]
            axes.errorbar(means, [place for place, _ in shown], xerr=widths, fmt=marker, capsize=3, label=f"{pool} pools")
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="average, %; bars: 95 % interval over seeds", title=table["name"])
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    return figure


def _png(figure: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "table"
