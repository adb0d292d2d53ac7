"""What an evaluation leaves for other programs: JSON, a table of queries, run files, and results in UniIR's form.

result.json                     everything measured
queries.parquet                 a row for each query, setting and pool
uniir.tsv                       hit rates in the columns of UniIR's table of results
runs/<setting>_<pool>.trec      rankings in TREC's six columns
runs/<setting>_<pool>.uniir     in UniIR's seven: with the task at the end
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from umr import files
from umr.data.mbeir_records import is_text_retrieval
from umr.evaluation.per_query import QueryScores, write_queries
from umr.evaluation.result import EvaluationResult, Run, SettingResult
from umr.evaluation.stamps import union

RESULT, QUERIES, UNIIR, RUNS = "result.json", "queries.parquet", "uniir.tsv", "runs"
_HEADER = ("TaskID", "Task", "Dataset", "Split", "Metric", "CandPool", "Value", "UnionPool", "UnionValue")


def write_outputs(result: EvaluationResult, folder: Path) -> list[Path]:
    """Write all files above, each whole or not at all; returns their paths.

    The table in UniIR's form is left out where UniIR has none: for text-retrieval sets, and for a filtered or calibrated pool.
    """
    folder = Path(folder)
    paths = write_scores(result, folder)
    if result.mixed_pool in (None, "global") and not any(is_text_retrieval(one.setting) for one in result.settings):
        paths.append(folder / UNIIR)
        files.write_text(paths[-1], uniir_table(result))
    return [*paths, *write_runs(result, folder / RUNS)]


def write_scores(result: EvaluationResult, folder: Path) -> list[Path]:
    """Write `result.json` and `queries.parquet`, which `umr compare` and `umr report` read; returns their paths."""
    files.write_text(folder / RESULT, result.to_json())
    write_queries(result.queries, _about(result), folder / QUERIES)
    return [folder / RESULT, folder / QUERIES]


def write_runs(result: EvaluationResult, folder: Path) -> list[Path]:
    """Write `<setting>_<pool>.trec` and `<setting>_<pool>.uniir` for every setting and pool; returns their paths."""
    paths = []
    for (setting, pool), run in result.runs.items():
        for suffix, lines in (("trec", run.trec_lines()), ("uniir", _uniir_lines(run, setting, pool, result.split))):
            paths.append(Path(folder) / f"{setting}_{pool}.{suffix}")
            files.write_text(paths[-1], "".join(lines))
    return paths


def uniir_table(result: EvaluationResult) -> str:
    """Tab-separated, with the header of UniIR's own table of results, settings in its order.

    Rows are hit rates at 1, 5 and 10, of Fashion200K and FashionIQ at 10, 20 and 50, as fractions rounded to four digits; UniIR calls
    them recall. Settings without a local pool have none. Where any number is stamped there is a tenth column, `Stamps`.
    """
    stamped = any(pool.stamps for one in result.settings for pool in one.pools.values())
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow([*_HEADER, *(["Stamps"] if stamped else [])])
    for one in result.settings:
        kinds = ["; ".join(union([pool.stamps for pool in one.pools.values()]))] if stamped else []
        writer.writerows([*row, *kinds] for row in _rows(result, one))
    return out.getvalue()


def _rows(result: EvaluationResult, one: SettingResult) -> Iterator[list[str]]:
    local, everything = (result.queries.get((one.setting, pool)) for pool in ("local", "global"))
    task = one.setting.rpartition("_task")[2]
    for k in (10, 20, 50) if one.main_metric == "hit@10" else (1, 5, 10):
        if local is None or f"hit@{k}" not in local.values:  # not searched, or not as deep
            continue
        rest = ["", ""] if everything is None else ["union", _fraction(everything, k)]
        yield [task, one.task, one.setting, result.split, f"Recall@{k}", one.setting, _fraction(local, k), *rest]


def _uniir_lines(run: Run, setting: str, pool: str, split: str) -> Iterator[str]:
    where = {"local": "single_pool", "global": "union_pool"}.get(pool, pool)
    name = f"mbeir_{setting}_{where}_{split}_k{run.rows_QK.shape[1]}"
    return run.trec_lines(name, f" {setting.rpartition('_task')[2]}")


def _fraction(scores: QueryScores, k: int) -> str:
    hits_Q = scores.values[f"hit@{k}"]
    return str(round(float(hits_Q.sum()) / len(hits_Q), 4))


def _about(result: EvaluationResult) -> dict[str, str]:
    """What the table of queries says of itself: how it was made, and what its numbers are stamped with."""
    about = {"model": result.fingerprint, "data": result.data, "split": result.split, "instruction": result.instruction}
    about |= {"positives": "own" if result.own_positives else "all", "depth": str(result.depth)}
    for one in result.settings:
        for pool, found in one.pools.items():
            if found.stamps:
                about[f"stamps {one.setting} {pool}"] = "; ".join(f"{kind}: {what}" for kind, what in found.stamps.items())
    return about
