"""The tables of an evaluation's scores, with the published systems beside where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from statistics import fmean
from typing import Any

from umr.evaluation import published
from umr.evaluation.averages import GROUPS
from umr.evaluation.modality import short
from umr.gallery import table
from umr.reports.comparison_page import title_of
from umr.reports.words import MARK, percent

Content = Mapping[str, Any]


def section(content: Content) -> list[str]:
    """Main metrics by pool, their averages, and what the marks mean."""
    parts = ["<p>The main metric of each setting, in percent. Chance: random rankings.</p>"]
    for pool in pools_of(content):
        parts += [f"<h3>{escape(title_of(pool))}</h3>", _own(content, pool), *_beside(content, pool), *_marks(content, pool)]
    return parts


def pools_of(content: Content) -> list[str]:
    """Pools that were searched, the local one first."""
    return sorted(content["averages"], key=lambda pool: (pool != "local", pool))


def _own(content: Content, pool: str) -> str:
    reranked = content.get("rerank")
    more = ["before reranking", "P(Yes) alone"] if reranked else []
    rows = []
    for one in content["settings"]:
        found, metric = one["pools"][pool], one["main_metric"]
        cells = [one["setting"], _score(found, metric), f"{found['chance'][metric]:.2g}"]
        cells += [percent(reranked[key][one["setting"]][pool]) for key in ("recall", "alone")] if reranked else []
        rows.append([*cells, metric, short(one["task"]), f"{one['queries']:,}", f"{found['size']:,}"])
    stamped = {one["setting"] for one in content["settings"] if one["pools"][pool]["stamps"]}
    groups = content["groups"][pool]
    for name in (name for name in GROUPS if name in groups):
        many = len(groups[name]["settings"])
        mean = percent(groups[name]["score"]) + (MARK if stamped & set(groups[name]["settings"]) else "")
        rows.append([f"average: {name}", mean, "", *[""] * len(more), f"{many} setting{'s' * (many > 1)}", "", "", ""])
    return table(["setting", "score", "chance", *more, "metric", "task", "queries", "candidates"], rows)


def _score(found: Content, metric: str) -> str:
    return percent(found["metrics"][metric]) + (MARK if found["stamps"] else "")


def _beside(content: Content, pool: str) -> list[str]:
    """Published systems; nothing for other benchmarks than M-BEIR, other splits than test, and pools searched in another way."""
    measured = {one["setting"]: one for one in content["settings"]}
    systems = [one for one in published.systems() if one.pool == pool]
    if not systems or content["data"]["split"] != "test" or not measured.keys() <= published.settings().keys():
        return []
    own = {name: one["pools"][pool]["metrics"][one["main_metric"]] for name, one in measured.items()}
    rows = []
    for name, one in measured.items():
        rows.append([name, _score(one["pools"][pool], one["main_metric"]), *(percent(system.scores[name]) for system in systems)])
    means = (fmean(scores[name] for name in measured) for scores in (own, *(system.scores for system in systems)))
    rows.append([f"average of {len(measured)}", *map(percent, means)])
    sources = {source: [one.name for one in systems if one.source == source] for source in dict.fromkeys(one.source for one in systems)}
    said = "; ".join(f"{source}: {', '.join(names)}" for source, names in sources.items())
    head = ["setting", "this model", *(one.name for one in systems)]
    return [table(head, rows, "beside published systems"), f"<p class=dim>Sources. {escape(said)}.</p>"]


def _marks(content: Content, pool: str) -> list[str]:
    stamped = [(one["setting"], one["pools"][pool]["stamps"]) for one in content["settings"]]
    lines = [f"{setting}: {kind} ({said})" for setting, stamps in stamped for kind, said in stamps.items()]
    return [f"<p class=dim>{MARK} Not measured as published. {escape('; '.join(lines))}.</p>"] if lines else []


def everything(content: Content) -> list[str]:
    """Every metric of every setting and pool, folded away."""
    parts = []
    for pool in pools_of(content):
        names = sorted({name for one in content["settings"] for name in one["pools"][pool]["metrics"]}, key=_by_cut)
        rows = []
        for one in content["settings"]:
            found = one["pools"][pool]
            cells = (_score(found, name) if name in found["metrics"] else "" for name in names)
            rows.append([one["setting"], *cells])
        parts.append(f"<details><summary>{escape(title_of(pool))}</summary>{table(('setting', *names), rows)}</details>")
    return parts


def _by_cut(metric: str) -> tuple[str, int]:
    """For an order in which hit@5 comes before hit@10."""
    name, _, cut = metric.partition("@")
    return name, int(cut or 0)
