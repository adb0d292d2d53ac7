"""An evaluation as tables for the terminal: scores and averages, all metrics, what comes first in a mixed pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from umr.errors import RecipeError
from umr.evaluation import published
from umr.evaluation.modality import MODALITIES, Diagnosis, short
from umr.evaluation.result import DIAGNOSED, EvaluationResult, SettingResult
from umr.evaluation.stamps import union

if TYPE_CHECKING:
    from rich.table import Table

_SCORES = "In percent. t: text, i: image, v: video. chance: random rankings. modality@1: first global result is of the kind looked for."
_METRICS = (
    "In percent. hit: queries with any right answer among the first k (papers say recall); recall: share of the right answers. "
    "absent: right answers that are not in the pool. lost: queries all of whose right answers are absent."
)
_FIRST = (
    "In percent. @k: results among the first k that have the modality looked for. First results that are no right answer: T1 wrong "
    "modality, else T2 wrong domain, else T3. On the right: modality of the first result (t: text, i: image, v: video)."
)


def score_table(result: EvaluationResult) -> Table:
    """A row for each setting, two for the averages and one for each kind of search, scores rounded to 0.1; 80 columns.

    A letter beside a number says what makes it differ from the published way of measuring; the caption explains it.
    """
    from rich import box
    from rich.table import Table

    table = Table(title=_title(result), caption=_caption(result), box=box.SIMPLE, padding=(0, 1, 0, 0))
    names = ("setting", "task", "metric") if result.rerank is None else ("setting", "metric")  # the weights take the room
    for name in names:
        table.add_column(name)
    for pool in result.pools:
        table.add_column(pool.replace("-", "-\n"), justify="right", style="bold")
        table.add_column("chance", justify="right", style="dim")
    if result.mixed_pool is not None:
        table.add_column("modality@1", justify="right")
    if result.rerank is not None:
        table.add_column("w", justify="right", no_wrap=True)
    for one in result.settings:
        about = {"setting": one.setting, "task": short(one.task), "metric": one.main_metric}
        table.add_row(*(about[name] for name in names), *_cells(result, one))
    table.add_section()
    marks = {pool: _marks(result, result.stamps(pool)) for pool in result.pools}
    for name, label in (("main", "above"), ("hit@5", "hit@5")):
        cells = [cell for pool in result.pools for cell in (f"{result.averages[pool][name]:.1f}{marks[pool]}", "")]
        table.add_row("average", *[""] * (len(names) - 2), label, *cells, style="bold")
    for group in next(iter(result.groups.values())):
        means = {pool: found[group] for pool, found in result.groups.items()}
        count = next(iter(means.values())).counts
        cells = [cell for pool in result.pools for cell in (f"{means[pool].score:.1f}{marks[pool]}", "")]
        if group != "all":
            table.add_row(group, *[""] * (len(names) - 2), count, *cells)
    return table


def metric_table(result: EvaluationResult, pool: str) -> Table:
    """All metrics over one pool, a row for each setting; 80 columns."""
    from rich import box
    from rich.table import Table

    table = Table(title=f"all metrics, {pool} pool", caption=_METRICS + _legend(result), box=box.SIMPLE, padding=(0, 1, 0, 0))
    names = ("hit@1", "hit@5", "hit@10", "recall@5", "recall@10", "ndcg@10", "mrr")
    table.add_column("setting", no_wrap=True)
    for name in (*names, "absent", "lost"):
        table.add_column(name.replace("@", "\n@"), justify="right", no_wrap=True)
    for one in result.settings:
        found = one.pools[pool]
        mark = _marks(result, list(found.stamps))
        scores = (f"{found.metrics[name]:.1f}{mark}" for name in names)
        table.add_row(one.setting, *scores, str(found.unreachable), str(found.unanswerable))
    return table


def _title(result: EvaluationResult) -> str:
    of, _, files = result.fingerprint.partition("run:")
    title = f"{result.split} queries, " + (f"run files {files[:12]}" if not of and files else f"model {result.fingerprint[:12]}")
    return title + (f", reranked by {result.rerank.fingerprint[:12]}" if result.rerank is not None else "")


def _caption(result: EvaluationResult) -> str:
    caption = _SCORES
    if result.rerank is not None:
        caption += f" The first {result.rerank.depth} results are in the order of cosine + w * P(Yes)."
    if missing := next(iter(result.groups.values()))["all"].missing:
        caption += f" Averages are over the settings shown; {len(missing)} of M-BEIR's {len(published.settings())} are missing."
    for pool in result.pools:
        found = [one.pools[pool] for one in result.settings]
        if absent := sum(one.unreachable for one in found):
            total = sum(one.positives for one in found)
            caption += f" The {pool} pool lacks {absent:,} of {total:,} right answers."
    return caption + _legend(result)


def _legend(result: EvaluationResult) -> str:
    return "".join(f" {letter}: {kind}." for kind, letter in _letters(result).items())


def _letters(result: EvaluationResult) -> dict[str, str]:
    """A letter for each kind of deviation that the result has."""
    kinds = union([pool.stamps for one in result.settings for pool in one.pools.values()])
    return dict(zip(kinds, "abcdefgh", strict=False))


def _marks(result: EvaluationResult, kinds: Sequence[str]) -> str:
    letters = _letters(result)
    return (" " + "".join(letters[kind] for kind in kinds)) if kinds else ""


def _cells(result: EvaluationResult, one: SettingResult) -> list[str]:
    cells = []
    for pool in result.pools:
        found = one.pools[pool]
        mark = _marks(result, list(found.stamps))
        cells += [f"{found.metrics[one.main_metric]:.1f}{mark}", f"{found.chance[one.main_metric]:.2g}"]
    if result.mixed_pool is not None:
        cells.append(f"{one.pools[result.mixed_pool].metrics['modality_accuracy@1']:.1f}")
    if result.rerank is not None:
        cells.append(f"{result.rerank.weights[one.setting]:g}")
    return cells


def modality_table(result: EvaluationResult) -> Table:
    """A row for each setting, one for the averages, and one for the queries of each modality; 80 columns.

    Raises:
        RecipeError: the global pool was not searched.
    """
    from rich import box
    from rich.table import Table

    pool, whole = mixed(result)
    title = f"what comes first in the {pool} pool, model {result.fingerprint[:12]}"
    table = Table(title=title, caption=_FIRST + _legend(result), box=box.SIMPLE, padding=0)
    for name in ("setting", "task"):
        table.add_column(name, no_wrap=True)
    for name in ("@1", "@5", "@10", "T1", "T2", "T3", *map(short, MODALITIES)):
        table.add_column(name, justify="right", no_wrap=True)
    for one in result.settings:
        found = one.pools[pool]
        assert found.modality is not None
        scores = (f"{found.metrics[name]:.1f}" for name in DIAGNOSED)
        mark = _marks(result, list(found.stamps))
        table.add_row(one.setting + mark, short(one.task), *scores, *_shares(Diagnosis.sum([found.modality])))
    table.add_section()
    average = "average" + _marks(result, result.stamps(pool))
    table.add_row(average, "", *(f"{result.averages[pool][name]:.1f}" for name in DIAGNOSED), style="bold")
    for asked, row in whole.shares.items():
        count = sum(whole.matrix[asked].values())
        table.add_row(f"{count} queries", short(asked), *[""] * len(DIAGNOSED), *(f"{row[name]:.0f}" for name in MODALITIES))
    return table


def mixed(result: EvaluationResult) -> tuple[str, Diagnosis]:
    """Name of the mixed pool, and what comes first in it. Raises `RecipeError` where there is none."""
    if result.mixed_pool is None or result.diagnosis is None:
        raise RecipeError("the global pool was not searched, and modalities are diagnosed there; add it to the pools")
    return result.mixed_pool, result.diagnosis


def _shares(found: Diagnosis) -> list[str]:
    total = sum(sum(row.values()) for row in found.matrix.values())
    return [f"{100 * sum(row[name] for row in found.matrix.values()) / total:.0f}" for name in MODALITIES]
