"""The two tables that mining writes, `negatives.parquet` and `audit.parquet`: one block of queries at a time, then joined."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from umr import files
from umr.data.benchmark import Pool
from umr.mining.filters import KEPT, NONE, POOL_NAMES, REASONS, Codes, Lists
from umr.mining.limits import MODALITIES
from umr.mining.modality import SET_NAMES
from umr.mining.queries import REPORT_FROM, Group
from umr.progress import track
from umr.store import VectorStore, VectorView

FORMAT = "1"
NEGATIVES, AUDIT = "negatives.parquet", "audit.parquet"
_UNREAD = 255
_LABEL = pa.dictionary(pa.int8(), pa.string())
NEGATIVES_SCHEMA = pa.schema(
    [
        ("qid", pa.string()),
        ("setting", pa.string()),
        ("negatives", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("positive_score", pa.float32()),
    ]
)
AUDIT_SCHEMA = pa.schema(
    [
        ("qid", pa.string()),
        ("did", pa.string()),
        ("setting", pa.string()),
        ("pool", _LABEL),
        ("rank", pa.int32()),
        ("score", pa.float32()),
        ("positive_score", pa.float32()),
        ("query_modality", pa.string()),
        ("modality", pa.string()),
        ("set", _LABEL),
        ("yes", pa.float32()),
        ("reason", _LABEL),
    ]
)


def declared(metric: str, model: str, data: str) -> dict[str, str]:
    """What a file says about itself in its schema's metadata."""
    return {"format": FORMAT, "metric": metric, "model": model, "data": data}


class PoolColumns:
    """Ids and modalities of the training pool's rows.

    Args:
        pool: the pool.
        store: its vectors, where there are some: they have both as columns. Without them the pool's file is read.
    """

    def __init__(self, pool: Pool, store: VectorStore | VectorView | None = None) -> None:
        self._pool, self._dids = pool, None if store is None else store.ids
        self._codes_N = np.full(len(pool), _UNREAD, np.uint8)
        if store is not None:
            self._codes_N[:] = pc.index_in(store.modalities, value_set=pa.array(MODALITIES))

    def dids(self, rows: npt.NDArray[np.int64]) -> pa.Array:
        """Ids of rows."""
        if self._dids is not None:
            return _flat(self._dids.take(pa.array(rows)))
        return pa.array([self._pool.ids[row] for row in rows.tolist()], pa.string())

    def modalities(self, rows: npt.NDArray[np.int64]) -> Codes:
        """Codes of `MODALITIES`, in the shape of the rows; 0 for rows below zero."""
        unread = np.unique(rows[(self._codes_N[rows] == _UNREAD) & (rows >= 0)])
        for row in track(unread.tolist(), "reading modalities", unit="candidates") if len(unread) >= REPORT_FROM else unread.tolist():
            self._codes_N[row] = MODALITIES.index(self._pool.modality(self._pool.ids[row]))
        return np.where(rows >= 0, self._codes_N[rows], 0).astype(np.uint8)

    @cache  # noqa: B019 - lives as long as the source
    def rows_of(self, modality: int) -> npt.NDArray[np.int64]:
        """All rows of one modality."""
        return np.flatnonzero(self.modalities(np.arange(len(self._pool))) == modality)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def negatives_of(
    group: Group, start: int, lists: Lists, codes_QW: Codes, positive_Q: npt.NDArray[np.float32], columns: PoolColumns
) -> pa.Table:
    """A row for each query of the block, also for those without a negative."""
    kept_QW = codes_QW == KEPT
    offsets = pa.array(np.concatenate([[0], np.cumsum(kept_QW.sum(axis=1))]), pa.int32())
    return pa.table(
        [
            pa.array(group.qids[start : start + len(kept_QW)], pa.string()),
            pa.array([group.setting] * len(kept_QW), pa.string()),
            pa.ListArray.from_arrays(offsets, columns.dids(lists.rows_QW[kept_QW])),
            pa.ListArray.from_arrays(offsets, _known(lists.scores_QW[kept_QW])),
            _known(positive_Q),
        ],
        schema=NEGATIVES_SCHEMA,
    )


def audit_of(
    group: Group,
    start: int,
    lists: Lists,
    codes_QW: Codes,
    sets_QW: Codes,
    positive_Q: npt.NDArray[np.float32],
    yes_QW: npt.NDArray[np.float32],
    columns: PoolColumns,
) -> pa.Table:
    """A row for each candidate that was found or drawn, in the order of queries and then of the lists."""
    there_QW = codes_QW != NONE
    queries_C, rows_C = np.nonzero(there_QW)[0], lists.rows_QW[there_QW]
    qids = pa.array(group.qids[start : start + len(codes_QW)], pa.string())
    ranks_C, modalities = lists.ranks_QW[there_QW], pa.array(MODALITIES, pa.string())
    return pa.table(
        [
            qids.take(pa.array(queries_C)),
            columns.dids(rows_C),
            pa.repeat(group.setting, len(rows_C)),
            _labels(lists.pools_QW[there_QW], list(POOL_NAMES.values()), first=1),
            pa.array(ranks_C, pa.int32(), mask=ranks_C == 0),
            _known(lists.scores_QW[there_QW]),
            _known(positive_Q[queries_C]),
            pa.repeat(group.asking, len(rows_C)),
            modalities.take(pa.array(columns.modalities(rows_C))),
            _labels(sets_QW[there_QW], list(SET_NAMES.values())[1:], first=1),
            _known(yes_QW[there_QW]),
            _labels(codes_QW[there_QW], list(REASONS)),
        ],
        schema=AUDIT_SCHEMA,
    )


def _known(values: npt.NDArray[np.float32]) -> pa.Array:
    """Numbers, null where they are nan."""
    return pa.array(values, pa.float32(), mask=np.isnan(values))


def _labels(codes: Codes, names: list[str], first: int = 0) -> pa.Array:
    """Names of codes that count from `first`; null for those below it."""
    indices = pa.array(codes.astype(np.int8) - first, pa.int8(), mask=codes < first)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def write_part(path: Path, table: pa.Table) -> None:
    """Write one block's table, atomically."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    files.write_bytes(path, buffer.getvalue())


def join(parts: Sequence[Path], path: Path, schema: pa.Schema, about: dict[str, str]) -> None:
    """Put parts together, a row group for each, with `about` in the schema; holds one part in memory."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with pq.ParquetWriter(temporary, schema.with_metadata(about), compression="zstd") as writer:
            for part in parts:
                table = pq.read_table(part)
                writer.write_table(table.cast(schema).replace_schema_metadata(about), row_group_size=max(1, len(table)))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
