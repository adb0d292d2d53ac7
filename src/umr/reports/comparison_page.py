"""A comparison as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from umr.evaluation.modality import MODALITIES
from umr.gallery import page, table
from umr.reports.looking import Looking
from umr.reports.pieces import STYLE, facts, heat, numbers
from umr.reports.words import difference, p_value, score

Content = Mapping[str, Any]


def html(content: Content, looking: Looking | None) -> str:
    """The whole page.

    Args:
        content: from `compare`.
        looking: shows the queries that changed most; `None` for their ids alone.
    """
    names = list(content["evaluations"])
    parts = [STYLE, f"<h1>{escape(' and '.join(names))}</h1>", *section(content, looking), numbers(content)]
    return page("umr compare", parts)


def section(content: Content, looking: Looking | None) -> list[str]:
    """The comparison as a part of a page, without a title."""
    about = [(name, _model(one)) for name, one in content["evaluations"].items()]
    data = content["data"]
    about.append(("data", f"{data['fingerprint']}, {data['split']} queries, instruction: {content['instruction']}"))
    parts = [facts(about), f"<p class=dim>{escape(content['note'])}</p>"]
    for pool, found in content["pools"].items():
        parts += [f"<h2>{escape(title_of(pool))}</h2>", *(_against(found, name, content["baseline"]) for name in content["changed"])]
    for pool, matrices in content["modality"].items():
        parts.append(f"<h2>Modality of the first result, {escape(pool)} pool</h2><div class=row>")
        parts += [_matrix(name, one) for name, one in matrices.items()]
        parts.append("</div>")
    for name, changed in content["changed"].items():
        for way, title in (("better", f"Better with {name}"), ("worse", f"Worse with {name}")):
            parts.append(f"<h2>{escape(title)}</h2>")
            parts += [_change(one, (content["baseline"], name), looking) for one in changed[way]] or ["<p>No query.</p>"]
    return parts


def title_of(pool: str) -> str:
    """Heading of a pool's numbers."""
    return {"local": "Local pools", "text": "Text retrieval"}.get(pool, f"{pool.capitalize()} pool")


def _model(one: Content) -> str:
    words = [f"model {one['fingerprint']}"]
    words += [f"{one['dimension']} dimensions"] if "dimension" in one else []
    return ", ".join(words + ([f"reranked by {one['reranker']}"] if "reranker" in one else []))


def _against(found: Content, name: str, baseline: str) -> str:
    head = ("setting", "metric", "queries", baseline, name, "difference", "p", "wins", "losses", "ties")
    rows = [_cells(row, (baseline, name)) for row in (*found["settings"], {"setting": "average", "metric": "", **found["average"]})]
    return table(head, rows, f"{name} against {baseline}; in brackets 95 % intervals")


def _cells(row: Content, names: tuple[str, str]) -> list[str]:
    against = row["against"][names[1]]
    cells = [row["setting"], row["metric"], f"{row['queries']:,}", *(score(row["scores"][one]) for one in names), difference(against)]
    return [*cells, p_value(against.get("p_holm", against["p"])), *(f"{against[key]:,}" for key in ("wins", "losses", "ties"))]


def _matrix(name: str, found: Content) -> str:
    shown = [kind for kind in MODALITIES if any(row[kind] for row in found["matrix"].values())]
    rows = [
        (f"{asked} ({sum(found['matrix'][asked].values()):,})", [row[kind] for kind in shown], None)
        for asked, row in found["shares"].items()
    ]
    return heat("query (number)", shown, rows, f"{name}: first results in % of the row")


def _change(one: Content, names: tuple[str, str], looking: Looking | None) -> str:
    ranks = " → ".join("not found" if rank is None else f"rank {rank}" for rank in one["rank"])
    title = f"<h3>{escape(one['setting'])}, {escape(one['pool'])} pool: {escape(one['qid'])}</h3>"
    said = f"first right answer: {ranks}; first results: {', '.join(str(did) for did in one['first'])}"
    if looking is None:
        return f"{title}<p>{escape(said)}</p>"
    setting, pool, qid = one["setting"], one["pool"], one["qid"]
    right = looking.right(setting, pool, qid)
    cards = [looking.query(setting, qid), *([right[1]] if right else [])]
    for name, did, rank in zip(names, one["first"], one["rank"], strict=True):
        mark, kind = (" ✓ right", "right") if rank == 1 else ("", "")
        cards.append(looking.candidate(setting, pool, did, f"first with {name}{mark}", kind))
    asked = f"<p>{escape(looking.instruction(setting, qid))} <span class=dim>{escape(said)}</span></p>"
    return f"{title}{asked}<div class=row>{''.join(cards)}</div>"
