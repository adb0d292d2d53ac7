"""The report of mining as one HTML file: what was kept and dropped and why, and the kept candidates that look most like positives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from umr.data.benchmark import Pool
from umr.gallery import card, page, plot, table
from umr.mining.audit import Kind, Summary, Suspect
from umr.mining.filters import BY_CONTENT, BY_ID, BY_QRELS, KEPT, NOT_DRAWN, POOL_NAMES, REASONS
from umr.mining.modality import SET_NAMES
from umr.mining.queries import Group
from umr.mining.sources import Source

ROW = "<style>tr td,tr th{white-space:nowrap}</style>"
POSITIVES = 2
"""Shown of a query beside a suspect."""


def html(about: Mapping[str, Any], summary: Summary, groups: Sequence[Group], source: Source, pool: Pool) -> str:
    """The whole page.

    Args:
        about: fingerprints and settings, as in `mining.json`.
        summary: the counts.
        groups: the queries.
        source: gives their instructions.
        pool: gives the candidates.
    """
    total = sum(summary.counts.values())
    queries = sum(one.all for one in summary.queries.values())
    short = "the rank of a candidate" if summary.metric == "rank" else "score minus the positive's"
    parts = [
        ROW,
        "<h1>Hard negatives</h1>",
        f"<p>{queries:,} queries, {total:,} candidates looked at, {_count(summary, 'kept'):,} kept. "
        f"Model {escape(str(about['model']))}, data {escape(str(about['data']))}, metric {escape(summary.metric)}.</p>",
        f"<p>{escape('; '.join(f'{key}: {value}' for key, value in about['settings'].items()))}</p>",
        "<h2>Scores</h2><p>Left: the best positive of each query, candidates that a filter dropped, and candidates kept. "
        "Kept ones to the right of most positives are likely to be right answers that nobody marked.</p>",
        histograms(summary),
        "<h2>Queries by setting</h2>",
        _queries(summary),
        "<h2>Reasons by setting</h2><p>Candidates, and their share of the setting's in percent.</p>",
        reasons(summary),
        "<h2>Kept candidates by modality pair and pool</h2><p>Query and candidate; share of all that were kept in percent.</p>",
        _kept(summary, "modalities", lambda kind: kind.pair, lambda kind: kind.pool, POOL_NAMES.values()),
        *_sets(summary),
        f"<h2>The likeliest false negatives</h2><p>Kept candidates, at most one a query, by {short}: query, positive, candidate.</p>",
        _suspects(summary.suspects, groups, source, pool),
    ]
    return page("umr mine", parts)


def _count(summary: Summary, reason: str) -> int:
    return sum(count for kind, count in summary.counts.items() if kind.reason == reason)


def _queries(summary: Summary) -> str:
    rows = [
        (name, f"{one.all:,}", f"{one.with_negatives:,}", f"{one.negatives / one.all:.2f}", f"{one.without_positive_score:,}")
        for name, one in summary.queries.items()
    ]
    return table(("setting", "queries", "with negatives", "negatives a query", "positive without score"), rows)


def reasons(summary: Summary) -> str:
    """A table of reasons by setting: candidates, and their share in percent."""
    by_setting: Counter[tuple[str, str]] = Counter()
    for kind, count in summary.counts.items():
        by_setting[kind.setting, kind.reason] += count
        by_setting["all", kind.reason] += count
    shown = [reason for reason in REASONS if by_setting["all", reason]]
    rows = []
    for setting in [*summary.queries, "all"]:
        total = sum(by_setting[setting, reason] for reason in shown)
        share = [f"{by_setting[setting, reason]:,} ({100 * by_setting[setting, reason] / max(1, total):.1f})" for reason in shown]
        rows.append((setting, *share))
    return table(("setting", *shown), rows)


def _sets(summary: Summary) -> list[str]:
    """Where negatives come from; nothing for mining that knows no sets."""
    if not any(kind.set for kind in summary.counts):
        return []
    names = list(SET_NAMES.values())[1:]
    return [
        "<h2>Kept candidates by set</h2><p>C1: of a wrong modality and above the positive. C2: of the right modality, past the cut and the "
        "filters. fallback: drawn at random for queries whose two sets were used up. Share of all that were kept in percent.</p>",
        _kept(summary, "setting", lambda kind: kind.setting, lambda kind: kind.set, names),
        _kept(summary, "modalities", lambda kind: kind.pair, lambda kind: kind.set, names),
    ]


def _kept(summary: Summary, head: str, row_of: Callable[[Kind], str], column_of: Callable[[Kind], str], columns: Iterable[str]) -> str:
    """Kept candidates by row and column, those columns that have some, and both totals."""
    counts: Counter[tuple[str, str]] = Counter()
    for kind, count in summary.counts.items():
        if kind.reason == REASONS[KEPT]:
            for row in (row_of(kind), "all"):
                counts[row, column_of(kind)] += count
                counts[row, "all"] += count
    shown, total = [column for column in columns if counts["all", column]], max(1, counts["all", "all"])
    names = [*sorted({row for row, _ in counts} - {"all"}), "all"]
    rows = [(row, *(f"{counts[row, column]:,} ({100 * counts[row, column] / total:.1f})" for column in (*shown, "all"))) for row in names]
    return table((head, *shown, "all"), rows)


def histograms(summary: Summary) -> str:
    """Scores of positives, dropped and kept candidates, and candidates by reason: one plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (scores, reasons) = pyplot.subplots(1, 2, figsize=(11, 3.8), layout="constrained", width_ratios=(3, 2))
    for (name, counts_B), colour in zip(summary.histograms.items(), ("#187a3c", "#2f5fb3", "#b3452f"), strict=True):
        if counts_B.sum():
            scores.stairs(100 * counts_B / counts_B.sum(), summary.edges, label=f"{name} ({counts_B.sum():,})", color=colour, linewidth=1.6)
    scores.set(xlabel="cosine" if summary.metric == "cosine" else "score", ylabel="% of the kind", title="Scores")
    if scores.get_legend_handles_labels()[0]:
        scores.legend()
    shown = [reason for reason in reversed(REASONS) if _count(summary, reason)]
    hues = {REASONS[KEPT]: "#2f5fb3", REASONS[NOT_DRAWN]: "#999999"} | {REASONS[code]: "#187a3c" for code in (BY_ID, BY_QRELS, BY_CONTENT)}
    reasons.barh(shown, [_count(summary, reason) for reason in shown], color=[hues.get(reason, "#b3452f") for reason in shown])
    reasons.set(xscale="log", xlabel="candidates", title="Reasons")
    return plot(figure, "histograms of scores, and candidates by reason")


def _suspects(suspects: Sequence[Suspect], groups: Sequence[Group], source: Source, pool: Pool) -> str:
    places = {group.setting: number for number, group in enumerate(groups)}
    rows = []
    for number, one in enumerate(suspects, 1):
        which = places[one.setting]
        group = groups[which]
        index = group.qids.index(one.qid)
        instruction = source.instructions(which, index, index + 1)[0] or ""
        right = [*group.positives[index].tolist(), *group.judged[index].tolist()]
        right = list(dict.fromkeys(right))[:POSITIVES]
        where = "drawn at random" if one.rank is None else f"rank {one.rank}"
        known = "" if one.positive_score is None else f", best positive {one.positive_score:.3f}"
        cards = [card(group.query(index).item, f"query {one.qid}", "query")]
        cards += [card(next(pool.items(row, row + 1)), "positive", "right") for row in right]
        cards.append(card(pool.item(one.did), f"kept: {one.did}"))
        rows.append(
            f"<h3>{number}. {escape(one.setting)}</h3><p>score {one.score:.3f}{known}; {where}, pool {escape(one.pool)}. "
            f"{escape(instruction)}</p><div class=row>{''.join(cards)}</div>"
        )
    return "".join(rows) or "<p>None: no candidate was kept.</p>"
