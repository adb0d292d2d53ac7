"""One evaluation as one HTML file that needs nothing else: scores, modalities, errors, quality against cost, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from umr.evaluation.modality import MODALITIES, OUTCOMES
from umr.gallery import page, scrolling, table
from umr.reports import cost_page, score_tables
from umr.reports.comparison_page import title_of
from umr.reports.costs import Cost, to_json
from umr.reports.failures import MEANINGS, Failure, failures
from umr.reports.looking import Looking
from umr.reports.pieces import STYLE, bar, facts, heat, key, numbers, tiles
from umr.reports.saved import Evaluation
from umr.reports.words import MARK, percent

Content = Mapping[str, Any]


def html(evaluation: Evaluation, looking: Looking | None = None, costs: Sequence[Cost] = ()) -> str:
    """The whole page.

    Args:
        evaluation: what was found.
        looking: shows queries and candidates; `None` for their ids alone.
        costs: from `umr.reports.costs.costs`; empty where vectors are not at hand.
    """
    content = evaluation.content
    sections: list[tuple[str, str, list[str]]] = [("scores", "Scores", score_tables.section(content))]
    for pool, found in content.get("modality", {}).items():
        sections.append(("modality", f"What comes first in the {pool} pool", _modality(content, pool, found)))
        sections.append(("errors", "Types of error", _errors(content, pool, found)))
    if costs:
        pool = score_tables.pools_of(content)[0]
        sections.append(("costs", "Quality against cost", cost_page.section(costs, pool, content["stamps"][pool])))
    sections.append(("failures", "Failures", _failures(evaluation, looking)))
    sections.append(("all", "All metrics", score_tables.everything(content)))
    links = "".join(f"<a href='#{name}'>{escape(title)}</a>" for name, title, _ in sections)
    parts = [STYLE, f"<h1>{escape(evaluation.name)}</h1>", _about(content), tiles(_first_numbers(content)), f"<nav>{links}</nav>"]
    for name, title, inside in sections:
        parts += [f"<section id={name}><h2>{escape(title)}</h2>", *inside, "</section>"]
    return page(evaluation.name, [*parts, numbers({"evaluation": content, "costs": to_json(costs)})])


def _about(content: Content) -> str:
    model, data = content["model"], content["data"]
    pairs = [("model", model["fingerprint"])]
    pairs += [("dimensions", f"{model['dimension']:,}")] if "dimension" in model else []
    asked = sum(one["queries"] for one in content["settings"])
    pairs += [
        ("data", data["fingerprint"]),
        ("queries", f"{asked:,} of {data['split']}"),
        ("instruction", content["instruction"]),
    ]
    if "rerank" in content:
        pairs.append(("reranker", f"{content['rerank']['fingerprint']}, the first {content['rerank']['depth']} results"))
    for pool, how in content.get("search", {}).items():
        pairs.append((pool, "only candidates of the modality wanted" if how.get("modality_filter") else "offsets by modality"))
    for pool, kinds in content["stamps"].items():
        pairs += [(f"{pool}, not as published", "; ".join(kinds))] if kinds else []
    return facts(pairs)


def _first_numbers(content: Content) -> list[tuple[str, str]]:
    found = []
    for pool in score_tables.pools_of(content):
        means = content["averages"][pool]
        mark = MARK if content["stamps"][pool] else ""
        found.append((percent(means["main"]) + mark, f"average, {title_of(pool).lower()}"))
        if "modality_accuracy@1" in means:
            found.append((percent(means["modality_accuracy@1"]) + mark, "modality@1: first results of the kind looked for"))
    return found


def _modality(content: Content, pool: str, whole: Content) -> list[str]:
    wanted = {one["setting"]: one["task"].partition(" -> ")[2] for one in content["settings"]}
    shown = [kind for kind in MODALITIES if kind in wanted.values() or any(row[kind] for row in whole["matrix"].values())]
    by_setting, by_query = [], []
    for one in content["settings"]:
        matrix = one["pools"][pool]["modality"]["matrix"]
        counts = [sum(row[kind] for row in matrix.values()) for kind in shown]
        by_setting.append((one["setting"], [100 * count / max(1, sum(counts)) for count in counts], wanted[one["setting"]]))
    for asked, row in whole["shares"].items():
        by_query.append((f"{asked} ({sum(whole['matrix'][asked].values()):,})", [row[kind] for kind in shown], None))
    return [
        heat("setting", shown, by_setting, "modality of the first result, % of queries; framed: the modality looked for"),
        heat("query (number)", shown, by_query, "by modality of the query, % of the row"),
    ]


def _errors(content: Content, pool: str, whole: Content) -> list[str]:
    names = {"right": "right", **{kind: f"{kind}: {MEANINGS[kind]}" for kind in OUTCOMES[1:]}}
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in ("setting", *(f"{name}, %" for name in OUTCOMES), ""))
    rows = []
    for name, counts in (
        *((one["setting"], one["pools"][pool]["modality"]["errors"]) for one in content["settings"]),
        ("all", whole["errors"]),
    ):
        total = max(1, sum(counts.values()))
        shares = {kind: 100 * counts[kind] / total for kind in OUTCOMES}
        cells = "".join(f"<td>{percent(share)}</td>" for share in shares.values())
        rows.append(f"<tr{' class=own' if name == 'all' else ''}><td>{escape(name)}</td>{cells}<td>{bar(shares)}</td></tr>")
    return [
        f"<p>What the first result is, in percent of queries (UniIR's types).<br>{key(names)}</p>",
        scrolling(f"<table><tr>{head}</tr>{''.join(rows)}</table>"),
    ]


def _failures(evaluation: Evaluation, looking: Looking | None) -> list[str]:
    parts = ["<p>Queries whose first result is no right answer, drawn at random from the settings in turn.</p>"]
    found = failures(evaluation)
    if not found:
        return ["<p>Every first result is right.</p>"]
    for kind, some in found.items():
        parts.append(f"<h3>{escape(kind)}: {escape(MEANINGS[kind])}</h3>" if kind in OUTCOMES else "")
        if looking is None:
            rows = [(one.setting, one.qid, one.first or "none", str(one.rank or "not found")) for one in some]
            parts.append(table(("setting", "query", "first result", "rank of a right answer"), rows))
        else:
            parts += [_failure(one, looking) for one in some]
    return parts


def _failure(one: Failure, looking: Looking) -> str:
    right = looking.right(one.setting, one.pool, one.qid)
    cards = [
        looking.query(one.setting, one.qid),
        right[1] if right else "",
        looking.candidate(one.setting, one.pool, one.first, f"first: {one.first}"),
    ]
    rank = f"the first right answer has rank {one.rank}" if one.rank else "no right answer among the results"
    rank += "" if right else "; the pool has none"
    said = f"{escape(looking.instruction(one.setting, one.qid))} <span class=dim>{escape(rank)}</span>"
    return f"<p><b>{escape(one.setting)}</b> {said}</p><div class=row>{''.join(cards)}</div>"
