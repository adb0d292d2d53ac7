"""Going through a text-retrieval set before it is used."""

from __future__ import annotations

from umr.data.mbeir_check import Report
from umr.data.text_judgements import judged_lines
from umr.data.text_retrieval import TextRetrieval
from umr.errors import DataError


def check(tree: TextRetrieval, split: str) -> Report:
    """Look at every line of a split: malformed records, and judgements of queries or documents that are in no file.

    Args:
        tree: opened with `on_error="skip"`, so that everything is collected.
        split: `"train"`, `"val"` or `"test"`.

    Raises:
        DataError: there are no judgements of that split.
    """
    if not tree.settings(split):
        raise DataError(f"{tree.qrels_path(tree.setting, split)}: does not exist, so there are no queries of split {split!r}")
    report, pool, queries = Report(), tree.train_pool(), tree.queries(tree.setting, split)
    judged = tree.judgements(split)
    report.counts["queries"] = len(queries)
    report.counts["candidates"] = len(pool)
    report.counts["judgements"] = sum(map(len, judged.relevant.values()))
    report.problems += [*pool.problems, *queries.records.problems, *judged.problems]
    for number, row in judged_lines(judged.path):
        if isinstance(row, tuple):
            for id, place, kind in ((row[0], queries.records, "query"), (row[1], pool, "document")):
                if id not in place:
                    report.add("unknown id", judged.path, number, f"{kind} {id!r} is not in {place.path}")
    return report
