"""Writing the page of an evaluation."""

from __future__ import annotations

from pathlib import Path

from umr.errors import RecipeError
from umr.files import write_text
from umr.reports import evaluation_page
from umr.reports.looking import Looking
from umr.reports.saved import Evaluation
from umr.reports.stored import benchmark_of, stored_costs


def write_report(evaluation: Evaluation, out: Path, benchmark: Path | None = None, work: Path | None = None) -> None:
    """Write one HTML file.

    Args:
        evaluation: what was found.
        out: the file.
        benchmark: folder of the benchmark; without it examples are ids, and there are no costs.
        work: folder of the vectors; without it there are no costs.

    Raises:
        DataError: the benchmark is another one.
        StoreError: `work` does not hold all vectors.
        RecipeError: `work` without `benchmark`.
    """
    if benchmark is None:
        if work is not None:
            raise RecipeError("work has no effect without the benchmark, whose judgements the vectors are compared with; name it, too")
        write_text(out, evaluation_page.html(evaluation))
        return
    opened = benchmark_of(evaluation, benchmark)
    looking = Looking.at(opened, evaluation)
    found = stored_costs(evaluation, opened, work) if work is not None else []
    write_text(out, evaluation_page.html(evaluation, looking, found))
