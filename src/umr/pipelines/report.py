"""What a pipeline's measurements say, stage after stage: `report.json` and `report.html`."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.files import write_text
from umr.gallery import page
from umr.pipelines.manifest import Manifest

if TYPE_CHECKING:
    from rich.table import Table

POOLS = ("local", "global")


def write(name: str, folder: Path, manifests: Mapping[str, Manifest]) -> None:
    """Write both files into the pipeline's folder."""
    content = _content(name, folder, manifests)
    write_text(folder / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "report.html", _html(content))


def _content(name: str, folder: Path, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    stages = []
    for stage, done in manifests.items():
        row: dict[str, Any] = {"name": stage, "kind": done.kind, "seconds": done.seconds, "metrics": done.metrics}
        if done.kind == "eval":
            result = json.loads((folder / stage / "result.json").read_text("utf-8"))
            row["settings"] = {
                one["setting"]: {pool: found["metrics"][one["main_metric"]] for pool, found in one["pools"].items()}
                for one in result["settings"]
            }
        stages.append(row)
    return {"name": name, "seconds": round(sum(row["seconds"] for row in stages), 1), "stages": stages}


def table(manifests: Mapping[str, Manifest]) -> Table:
    """A row for each finished stage: averages of those that measure, and seconds."""
    from rich import box
    from rich.table import Table

    drawn = Table(title="averages in percent", box=box.SIMPLE_HEAD)
    drawn.add_column("stage")
    drawn.add_column("kind")
    for column in (*POOLS, "seconds"):
        drawn.add_column(column, justify="right")
    for name, done in manifests.items():
        scores = (f"{done.metrics[pool]:.1f}" if done.kind == "eval" and pool in done.metrics else "" for pool in POOLS)
        drawn.add_row(name, done.kind, *scores, f"{done.seconds:.0f}")
    drawn.add_section()
    drawn.add_row("all", "", "", "", f"{sum(done.seconds for done in manifests.values()):.0f}")
    return drawn


def _html(content: dict[str, Any]) -> str:
    measured = [stage for stage in content["stages"] if stage["kind"] == "eval"]
    parts = [f"<h1>{escape(content['name'])}</h1>", "<p>Scores are the main metric of each setting, in percent.</p>"]
    if measured:
        parts.append(f"<img class=plot alt='averages after each stage' src='{_plot(measured)}'>")
    for pool in POOLS:
        if any(pool in stage["metrics"] for stage in measured):
            parts.append(f"<h2>{pool.capitalize()} pools</h2>{_by_setting(measured, pool)}")
    rows = "".join(f"<tr><td>{escape(s['name'])}</td><td>{s['kind']}</td><td>{s['seconds']:.0f}</td></tr>" for s in content["stages"])
    parts.append(f"<h2>Stages</h2><table><tr><th>stage</th><th>kind</th><th>seconds</th></tr>{rows}</table>")
    return page(content["name"], parts)


def _by_setting(measured: list[dict[str, Any]], pool: str) -> str:
    shown = [stage for stage in measured if pool in stage["metrics"]]
    head = "".join(f"<th>{escape(stage['name'])}</th>" for stage in shown)
    rows = []
    for setting in dict.fromkeys(setting for stage in shown for setting in stage["settings"]):
        scores = (stage["settings"].get(setting, {}).get(pool) for stage in shown)
        cells = "".join(f"<td>{'' if score is None else f'{score:.1f}'}</td>" for score in scores)
        rows.append(f"<tr><td>{escape(setting)}</td>{cells}</tr>")
    average = "".join(f"<td>{stage['metrics'][pool]:.1f}</td>" for stage in shown)
    return f"<table><tr><th>setting</th>{head}</tr>{''.join(rows)}<tr class=average><td>average</td>{average}</tr></table>"


def _plot(measured: list[dict[str, Any]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6, 1.3 * len(measured)), 4), layout="constrained")
    draw_averages(figure.subplots(), [(stage["name"], stage["metrics"]) for stage in measured])
    return data_uri(figure)


def draw_averages(axes: Any, stages: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """Draw averages over the names of stages, a line for each pool.

    Args:
        axes: matplotlib's.
        stages: names, each with its averages in percent by pool.
    """
    for pool, marker in zip(POOLS, ("o-", "s--"), strict=True):
        shown = [(name, averages[pool]) for name, averages in stages if pool in averages]
        axes.plot([name for name, _ in shown], [average for _, average in shown], marker, label=f"{pool} pools")
    axes.set(ylabel="average, %", title="After each stage")
    axes.tick_params(axis="x", rotation=30)
    axes.grid(axis="y", alpha=0.3)
    axes.legend()


def data_uri(figure: Any) -> str:
    """A matplotlib figure as the source of an HTML image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
