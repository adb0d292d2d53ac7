"""What comes first in a mixed pool, as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umr.errors import RecipeError
from umr.evaluation.modality import MODALITIES, Diagnosis, short
from umr.evaluation.result import DIAGNOSED, EvaluationResult

if TYPE_CHECKING:
    from rich.table import Table

_CAPTION = (
    "In percent. @k: results among the first k that have the modality looked for. First results that are no right answer: T1 wrong "
    "modality, else T2 wrong domain, else T3. On the right: modality of the first result (t: text, i: image, v: video)."
)


def modality_table(result: EvaluationResult) -> Table:
    """A row for each setting, one for the averages, and one for the queries of each modality; 80 columns.

    Raises:
        RecipeError: the global pool was not searched.
    """
    from rich import box
    from rich.table import Table

    pool, whole = mixed(result)
    title = f"what comes first in the {pool} pool, model {result.fingerprint[:12]}"
    table = Table(title=title, caption=_CAPTION, box=box.SIMPLE, padding=0)
    for name in ("setting", "task"):
        table.add_column(name, no_wrap=True)
    for name in ("@1", "@5", "@10", "T1", "T2", "T3", *map(short, MODALITIES)):
        table.add_column(name, justify="right", no_wrap=True)
    for one in result.settings:
        found = one.pools[pool]
        assert found.modality is not None
        scores = (f"{found.metrics[name]:.1f}" for name in DIAGNOSED)
        table.add_row(one.setting, short(one.task), *scores, *_shares(Diagnosis.sum([found.modality])))
    table.add_section()
    table.add_row("average", "", *(f"{result.averages[pool][name]:.1f}" for name in DIAGNOSED), style="bold")
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
