"""Whether the judgements of a benchmark are about its queries, looked at before anything is embedded."""

from __future__ import annotations

from collections.abc import Sequence

from umr.data.benchmark import Benchmark
from umr.data.mbeir import MBeir, Setting
from umr.data.qrels import qrels_lines
from umr.errors import DataError


def check_judged(benchmark: Benchmark, settings: Sequence[Setting], split: str) -> None:
    """Refuse judgements of queries that are not there: the two files are not of one set, or one of them is broken.

    A tree that is read with `on_error="skip"` may lack queries. Candidates that no pool holds are no error: they count as
    unreachable, which results say.

    Raises:
        DataError: with file and line.
    """
    if not isinstance(benchmark, MBeir) or benchmark.on_error == "skip":
        return
    for setting in settings:
        known = set(benchmark.queries(setting, split).ids)
        unknown = next((qid for qid in benchmark.judgements(setting, split).relevant if qid not in known), None)
        if unknown is not None:
            path = benchmark.qrels_path(setting, split)
            line = next(number for number, cells in qrels_lines(path) if cells[0] == unknown)
            queries = benchmark.query_path(setting, split)
            raise DataError(f"{path}:{line}: judges query {unknown!r}, which {queries.name} does not have; skip bad data to do without it")
