"""What a pipeline's measurements say, stage after stage: `report.json` and `report.html`."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.data.mbeir_records import is_text_retrieval
from umr.files import write_text
from umr.gallery import page
from umr.pipelines.manifest import Manifest

if TYPE_CHECKING:
    from rich.table import Table

POOLS = ("local", "global")
SEARCHED = (*POOLS, "global-filtered", "global-calibrated")
"""Names of pools in results: a global pool that is not searched plainly has its own."""
MODALITY = "modality@1"
TEXT = "text"
"""Text-retrieval sets: nDCG@10, in a column of its own."""


def write(name: str, folder: Path, manifests: Mapping[str, Manifest]) -> None:
    """Write both files into the pipeline's folder."""
    content = _content(name, folder, manifests)
    write_text(folder / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "report.html", _html(content, folder))


def _content(name: str, folder: Path, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    stages = []
    for stage, done in manifests.items():
        row: dict[str, Any] = {"name": stage, "kind": done.kind, "seconds": done.seconds, "metrics": done.metrics}
        if done.kind == "eval":
            result = json.loads((folder / stage / "result.json").read_text("utf-8"))
            settings = [one for part in result.get("benchmarks", [result]) for one in part["settings"]]
            row["settings"] = {one["setting"]: _of_setting(one) for one in settings}
        stages.append(row)
    return {"name": name, "seconds": round(sum(row["seconds"] for row in stages), 1), "stages": stages}


def _of_setting(one: dict[str, Any]) -> dict[str, float]:
    """Main metric by pool, and the modality accuracy of the mixed one."""
    scores = {pool: found["metrics"][one["main_metric"]] for pool, found in one["pools"].items()}
    if is_text_retrieval(one["setting"]):
        return {TEXT: next(iter(scores.values()))}
    for found in one["pools"].values():
        if "modality_accuracy@1" in found["metrics"]:
            scores[MODALITY] = found["metrics"]["modality_accuracy@1"]
    return scores


def table(manifests: Mapping[str, Manifest]) -> Table:
    """A row for each finished stage: averages of those that measure, modality accuracy in the global pool, and seconds."""
    from rich import box
    from rich.table import Table

    drawn = Table(title="averages in percent", box=box.SIMPLE_HEAD)
    drawn.add_column("stage")
    drawn.add_column("kind")
    measured = {key for done in manifests.values() if done.kind == "eval" for key in done.metrics}
    columns = [key for key in (*SEARCHED, MODALITY, TEXT) if key in (*POOLS, *measured)]
    for column in (*columns, "seconds"):
        drawn.add_column(column, justify="right")
    for name, done in manifests.items():
        scores = (f"{done.metrics[key]:.1f}" if done.kind == "eval" and key in done.metrics else "" for key in columns)
        drawn.add_row(name, done.kind, *scores, f"{done.seconds:.0f}")
    drawn.add_section()
    drawn.add_row("all", "", *[""] * len(columns), f"{sum(done.seconds for done in manifests.values()):.0f}")
    return drawn


def _html(content: dict[str, Any], folder: Path) -> str:
    measured = [stage for stage in content["stages"] if stage["kind"] == "eval"]
    parts = [f"<h1>{escape(content['name'])}</h1>", "<p>Scores are the main metric of each setting, in percent.</p>"]
    if measured:
        parts.append(f"<img class=plot alt='averages after each stage' src='{_plot(measured)}'>")
    for pool in SEARCHED:
        if any(pool in stage["metrics"] for stage in measured):
            parts.append(f"<h2>{pool.capitalize()} pools</h2>{_by_setting(measured, pool)}")
    if any(TEXT in stage["metrics"] for stage in measured):
        parts.append(f"<h2>Text retrieval</h2>{_by_setting(measured, TEXT)}")
    if any(MODALITY in stage["metrics"] for stage in measured):
        parts.append("<h2>Modality accuracy</h2><p>First results in the global pool that have the modality looked for, in percent.</p>")
        parts += [_by_setting(measured, MODALITY), *(_heat_map(stage["name"], folder) for stage in measured)]
    rows = "".join(f"<tr><td>{escape(s['name'])}</td><td>{s['kind']}</td><td>{s['seconds']:.0f}</td></tr>" for s in content["stages"])
    parts.append(f"<h2>Stages</h2><table><tr><th>stage</th><th>kind</th><th>seconds</th></tr>{rows}</table>")
    return page(content["name"], parts)


def _by_setting(measured: list[dict[str, Any]], pool: str) -> str:
    shown = [stage for stage in measured if pool in stage["metrics"]]
    head = "".join(f"<th>{escape(stage['name'])}</th>" for stage in shown)
    rows = []
    for setting in dict.fromkeys(name for stage in shown for name, scores in stage["settings"].items() if pool in scores):
        scores = (stage["settings"].get(setting, {}).get(pool) for stage in shown)
        cells = "".join(f"<td>{'' if score is None else f'{score:.1f}'}</td>" for score in scores)
        rows.append(f"<tr><td>{escape(setting)}</td>{cells}</tr>")
    average = "".join(f"<td>{stage['metrics'][pool]:.1f}</td>" for stage in shown)
    return f"<table><tr><th>setting</th>{head}</tr>{''.join(rows)}<tr class=average><td>average</td>{average}</tr></table>"


def _heat_map(stage: str, folder: Path) -> str:
    """Which modalities come first after a stage, as it has drawn them; empty where it searched no global pool."""
    drawn = folder / stage / "modality.png"
    if not drawn.is_file():
        return ""
    source = f"data:image/png;base64,{base64.b64encode(drawn.read_bytes()).decode()}"
    return f"<h3>{escape(stage)}</h3><img class=plot alt='modality of first results, {escape(stage)}' src='{source}'>"


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
    for pool, marker in zip((*SEARCHED, TEXT), ("o-", "s--", "^:", "v-.", "D-"), strict=True):
        shown = [(name, averages[pool]) for name, averages in stages if pool in averages]
        if not shown:
            continue
        label = "text retrieval" if pool == TEXT else f"{pool} pools"
        axes.plot([name for name, _ in shown], [average for _, average in shown], marker, label=label)
    axes.set(ylabel="average, %", title="After each stage")
    axes.tick_params(axis="x", rotation=30)
    axes.grid(axis="y", alpha=0.3)
    axes.legend()


def data_uri(figure: Any) -> str:
    """A matplotlib figure as the source of an HTML image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
