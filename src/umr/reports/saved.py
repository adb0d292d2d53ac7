"""Evaluations on disk: the JSON of `umr eval`, and beside it the table of what each query scored and found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from umr.errors import DataError
from umr.evaluation.outputs import QUERIES, RESULT
from umr.evaluation.per_query import QueryScores

_FIXED = {"setting", "pool", "qid", "metric", "main", "first", "right", "rank", "positives", "reachable", "outcome"}
_AGAIN = "evaluate again with `umr eval --out FOLDER`"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one benchmark.

    Attributes:
        name: what it is called beside others.
        content: its JSON; see docs/formats.md.
        answers: what the queries of each setting scored and found in each pool.
    """

    name: str
    content: dict[str, Any]
    answers: Mapping[tuple[str, str], QueryScores]


def load(path: Path, name: str | None = None) -> Evaluation:
    """Read an evaluation.

    Args:
        path: folder with `result.json` and `queries.parquet`, or a JSON file with the table beside it.
        name: what it is called; default: the folder's name.

    Raises:
        DataError: nothing there, damaged files, or scores of another evaluation beside the JSON.
    """
    path = Path(path)
    file = path / RESULT if path.is_dir() else path
    content = _read_json(file)
    if "benchmarks" in content:
        raise DataError(f"{file}: holds {len(content['benchmarks'])} benchmarks; evaluate each into a folder of its own")
    if "results" in content:
        raise DataError(f"{file}: holds {len(content['results'])} wordings of the instructions; evaluate one into a folder of its own")
    if not {"settings", "data", "model"} <= content.keys():
        raise DataError(f"{file}: is no evaluation; {_AGAIN}")
    answers = read_queries(file.with_name(QUERIES))
    expected = {(one["setting"], pool): one["queries"] for one in content["settings"] for pool in one["pools"]}
    if {key: len(one.qids) for key, one in answers.items()} != expected:
        raise DataError(f"{file.with_name(QUERIES)}: is not of the evaluation in {file.name}; {_AGAIN}")
    return Evaluation(name or (file.resolve().parent if file.name == RESULT else file.with_suffix("")).name, content, answers)


def load_several(paths: Sequence[Path]) -> list[Evaluation]:
    """Read several, which are called by their folders, or by their paths where two folders have one name."""
    found = [load(path) for path in paths]
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        found = [Evaluation(str(path), one.content, one.answers) for path, one in zip(paths, found, strict=True)]
    if twice := sorted({one.name for one in found if [other.name for other in found].count(one.name) > 1}):
        raise DataError(f"{twice[0]}: is given twice")
    return found


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); {_AGAIN}") from error
    except ValueError as error:
        raise DataError(f"{file}: is no JSON ({error}); {_AGAIN}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: is no evaluation; {_AGAIN}")
    return content


def read_queries(path: Path) -> dict[tuple[str, str], QueryScores]:
    """Read what `write_queries` wrote, by setting and pool.

    Raises:
        DataError: it is missing, damaged, or something else.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]}); {_AGAIN}") from error
    if lacking := sorted(_FIXED - set(table.column_names)):
        raise DataError(f"{path}: has no column {lacking[0]!r}; {_AGAIN}")
    keys = table.select(["setting", "pool"]).group_by(["setting", "pool"]).aggregate([]).to_pylist()
    return {(key["setting"], key["pool"]): _scores(_part(table, key["setting"], key["pool"])) for key in keys}


def _part(table: pa.Table, setting: str, pool: str) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["setting"], setting), pc.equal(table["pool"], pool)))


def _scores(part: pa.Table) -> QueryScores:
    names = [name for name in part.column_names if name not in _FIXED and part[name].null_count < len(part)]
    outcomes = part["outcome"]
    return QueryScores(
        qids=tuple(part["qid"].to_pylist()),
        main=str(part["metric"][0].as_py()),
        values={name: part[name].to_numpy() for name in names},
        first=tuple(part["first"].to_pylist()),
        right=tuple(part["right"].to_pylist()),
        rank_Q=np.asarray(pc.fill_null(part["rank"], 0), np.int64),
        relevant_Q=np.asarray(part["positives"], np.int64),
        reachable_Q=np.asarray(part["reachable"], np.int64),
        outcomes=None if outcomes.null_count == len(outcomes) else tuple(outcomes.to_pylist()),
    )
