"""What each query scored and found, as one table for whoever compares systems query by query."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from umr.files import write_bytes

FORMAT = 1


@dataclass(frozen=True)
class QueryScores:
    """One search, query by query.

    Attributes:
        qids: Q queries.
        main: the metric that enters the average.
        values: by metric, one value from 0 to 1 a query, shape (Q,).
        first: did of the first result; `None` without results.
        right: did of the first right answer among the results; `None` where there is none.
        rank_Q: its rank from 1; 0 where there is none.
        relevant_Q: right answers that are judged.
        reachable_Q: those of them that could be ranked.
        outcomes: in a mixed pool, `"right"`, or UniIR's type of error; `None` for a query without results.
    """

    qids: tuple[str, ...]
    main: str
    values: dict[str, npt.NDArray[np.float64]]
    first: tuple[str | None, ...]
    right: tuple[str | None, ...]
    rank_Q: npt.NDArray[np.int64]
    relevant_Q: npt.NDArray[np.int64]
    reachable_Q: npt.NDArray[np.int64]
    outcomes: tuple[str | None, ...] | None = None


def write_queries(scores: Mapping[tuple[str, str], QueryScores], about: Mapping[str, str], path: Path) -> None:
    """Write a row for each query, setting and pool: Parquet, see docs/formats.md.

    Args:
        scores: by setting and pool.
        about: goes into the schema's metadata.
        path: the file.
    """
    names = list(dict.fromkeys(name for one in scores.values() for name in one.values))
    tables = [_table(setting, pool, one, names) for (setting, pool), one in scores.items()]
    table = pa.concat_tables(tables).unify_dictionaries()
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"format": str(FORMAT), **about}), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def _table(setting: str, pool: str, one: QueryScores, names: list[str]) -> pa.Table:
    count = len(one.qids)
    columns: dict[str, pa.Array] = {
        "setting": _same(setting, count),
        "pool": _same(pool, count),
        "qid": pa.array(one.qids, pa.string()),
        "metric": _same(one.main, count),
        "main": pa.array(one.values[one.main], pa.float64()),
    }
    for name in names:
        values = one.values.get(name)
        columns[name] = pa.nulls(count, pa.float64()) if values is None else pa.array(values, pa.float64())
    columns["first"] = pa.array(one.first, pa.string())
    columns["right"] = pa.array(one.right, pa.string())
    columns["rank"] = pa.array(one.rank_Q, pa.int32(), mask=one.rank_Q == 0)
    columns["positives"] = pa.array(one.relevant_Q, pa.int32())
    columns["reachable"] = pa.array(one.reachable_Q, pa.int32())
    columns["outcome"] = pa.nulls(count, pa.string()) if one.outcomes is None else pa.array(one.outcomes, pa.string())
    return pa.table(columns)


def _same(value: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [value])
