"""Rows and files as Arrow tables, the form in which Lance keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.errors import DataError
from umr.search.metadata import decode, encode
from umr.search.rows import Row, SourceFile

PAYLOAD = ("id", "source", "modality", "digest", "text", "media", "page", "start", "end", "thumbnail", "metadata")
"""What a row is read back from when its vector is not asked for."""

FILES = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("modified_ns", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("reason", pa.string()),
    ]
)

_UNIT = 0.01
"""How far from 1 a vector's length may be; float16 rounds it by less than 0.001."""


def schema(dimension: int) -> pa.Schema:
    """Columns of the table of rows. `changed` is when a row was written, in nanoseconds: a row that is replaced gets another."""
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("source", pa.string()),
            pa.field("modality", pa.string()),
            pa.field("digest", pa.string()),
            pa.field("vector", pa.list_(pa.float16(), dimension)),
            pa.field("text", pa.string()),
            pa.field("media", pa.string()),
            pa.field("page", pa.int32()),
            pa.field("start", pa.float64()),
            pa.field("end", pa.float64()),
            pa.field("thumbnail", pa.binary()),
            pa.field("metadata", pa.string()),
            pa.field("changed", pa.int64()),
        ]
    )


def to_arrow(rows: Sequence[Row], dimension: int, changed: int) -> pa.Table:
    """The rows as the table keeps them.

    Args:
        rows: with vectors, ids unique.
        dimension: of the vectors.
        changed: nanoseconds; see `schema`.

    Raises:
        DataError: a duplicate or empty id, a vector that is missing, of another length or no unit vector, text that is not valid
            Unicode, or metadata that cannot be stored. Names the row.
    """
    ids: set[str] = set()
    for row in rows:
        if not row.id or row.id in ids:
            raise DataError(f"row {row.id!r} of {row.source}: " + ("an id must not be empty" if not row.id else "its id is there twice"))
        ids.add(row.id)
    vectors_ND = np.stack([_vector(row, dimension) for row in rows]) if rows else np.zeros((0, dimension), np.float16)
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in PAYLOAD if name != "metadata"}
    columns["metadata"] = [encode(row.metadata, f"row {row.id}") for row in rows]
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.reshape(-1)), dimension)
    columns["changed"] = [changed] * len(rows)
    try:
        return pa.table(columns, schema=schema(dimension))
    except UnicodeEncodeError as error:
        raise DataError(f"row {_not_unicode(rows)}: its text is not valid Unicode") from error


def from_arrow(batch: pa.RecordBatch) -> list[Row]:
    """Rows from a batch with the columns `PAYLOAD`, and `vector` where it was asked for."""
    vectors_ND = vectors(batch) if "vector" in batch.schema.names else None
    rows = batch.select(PAYLOAD).to_pylist()
    for number, row in enumerate(rows):
        row["metadata"] = decode(row["metadata"])
        row["vector_D"] = None if vectors_ND is None else vectors_ND[number]
    return [Row(**row) for row in rows]


def vectors(batch: pa.RecordBatch) -> npt.NDArray[np.float16]:
    """The column `vector` of N rows, not copied. Shape (N, dimension)."""
    column = batch.column("vector")
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)


def files_to_arrow(files: Iterable[SourceFile]) -> pa.Table:
    """Records of files as the table keeps them; the last one of a path stands."""
    last = {file.path: file for file in files}
    return pa.table({name: [getattr(file, name) for file in last.values()] for name in FILES.names}, schema=FILES)


def one_of(column: str, values: Iterable[str]) -> str:
    """The SQL condition that a text column holds one of these values, which may contain anything."""
    quoted = ("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({', '.join(quoted)})"


def _vector(row: Row, dimension: int) -> npt.NDArray[np.float16]:
    vector_D = row.vector_D
    if vector_D is None or vector_D.shape != (dimension,):
        what = "no vector" if vector_D is None else f"a vector of shape {vector_D.shape}"
        raise DataError(f"row {row.id!r} has {what}; this collection needs ({dimension},)")
    length = float(np.linalg.norm(vector_D.astype(np.float32)))
    if not abs(length - 1) <= _UNIT:  # so written that NaN fails
        raise DataError(f"row {row.id!r}: its vector has length {length:.3g} instead of 1; look at the item and at the model")
    return vector_D.astype(np.float16, copy=False)


def _not_unicode(rows: Sequence[Row]) -> str:
    for row in rows:
        try:
            "".join((row.id, row.source, row.modality, row.digest, row.text, row.media)).encode()
        except UnicodeEncodeError:
            return repr(row.id)
    return "(unknown)"
