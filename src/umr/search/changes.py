"""What has changed in a table since its index was built: found by comparing every row, kept beside the index.

Comparing takes a few seconds for a million rows, and so is spared where the same changes have been found before.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umr import files
from umr.search.columns import KEPT
from umr.search.derived import DELTA, SCANNED, Scan, flush, half_vectors
from umr.search.partition import Partition


@dataclass(frozen=True)
class Changes:
    """Rows that are new or other than they were, and ids of rows that are gone.

    Attributes:
        rows: columns `SCANNED`; None where there are none.
        gone: ids that the index has and the table has not.
    """

    rows: pa.Table | None
    gone: Sequence[str]

    def __len__(self) -> int:
        return (0 if self.rows is None else len(self.rows)) + len(self.gone)


def changes_since(base: Sequence[Partition], scan: Scan, dimension: int, most: int) -> Changes | None:
    """Compare a table with its index.

    Args:
        base: the index as it was built.
        scan: gives all rows of the table as it is.
        dimension: length of a vector.
        most: give up where there are more changes, which need a new index: None is returned.
    """
    offsets = np.cumsum([0] + [len(one.columns) for one in base])
    place_of = {id: place for place, id in enumerate(id for one in base for id in one.columns.ids.to_pylist())}
    seen = np.zeros(offsets[-1], np.bool_)
    changed: list[pa.Table] = []
    count = 0
    for batch in scan(SCANNED):
        table = pa.table(batch) if not isinstance(batch, pa.Table) else batch
        places = np.array([place_of.get(id, -1) for id in table["id"].to_pylist()], np.int64)
        seen[places[places >= 0]] = True
        same = _same(base, offsets, table, places, dimension)
        if not same.all():
            changed.append(table.filter(pa.array(~same)))
            count += len(changed[-1])
        if count > most:
            return None
    gone = np.flatnonzero(~seen)
    if count + len(gone) > most:
        return None
    names = [base[int(part)].columns.ids[int(place - offsets[part])].as_py() for part, place in _parts(offsets, gone)]
    return Changes(pa.concat_tables(changed).select(SCANNED) if changed else None, names)


def _parts(offsets: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    parts = np.searchsorted(offsets, places, side="right") - 1
    return list(zip(parts.tolist(), places.tolist(), strict=True))


def _same(
    base: Sequence[Partition], offsets: npt.NDArray[np.int64], table: pa.Table, places: npt.NDArray[np.int64], dimension: int
) -> npt.NDArray[np.bool_]:
    """Which rows are as the index has them. Shape (rows,)."""
    same = np.zeros(len(table), np.bool_)
    parts = np.where(places < 0, -1, np.searchsorted(offsets, places, side="right") - 1)
    for part in np.unique(parts[parts >= 0]).tolist():
        here = np.flatnonzero(parts == part)
        now, rows = table.take(pa.array(here)), places[here] - offsets[part]
        was = base[part].columns.table.take(pa.array(rows))
        vectors_ND = half_vectors(now["vector"], dimension)
        equal = (base[part].vectors_ND[rows].view(np.uint16) == vectors_ND.view(np.uint16)).all(axis=1)
        equal &= np.array(pc.equal(now["modality"], base[part].modality))
        for name in KEPT:
            equal &= _equal(was[name], now[name])
        same[here] = equal
    return same


def _equal(was: pa.ChunkedArray, now: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    both_missing = np.asarray(was.is_null()) & np.asarray(now.is_null())
    return both_missing | np.asarray(pc.equal(was, now.cast(was.type)).fill_null(False))


def save(folder: Path, base: Path, version: str, changes: Changes) -> None:
    """Keep the changes between an index and a table version."""
    rows = changes.rows if changes.rows is not None else None
    marks = {b"base": base.name.encode(), b"version": version.encode(), b"has_rows": b"1" if rows is not None else b""}
    gone = pa.table({"gone": pa.array(changes.gone, pa.string())}).replace_schema_metadata(marks)
    buffer = io.BytesIO()
    for table in (gone, rows):
        if table is not None:
            with pa.ipc.new_stream(buffer, table.schema) as writer:
                writer.write_table(table)
    files.write_bytes(folder / DELTA, buffer.getvalue())
    flush(folder)


def load(folder: Path, base: Path, version: str) -> Changes | None:
    """What `save` kept for this index and version, or None."""
    try:
        with (folder / DELTA).open("rb") as file:
            gone = pa.ipc.open_stream(file).read_all()
            marks = gone.schema.metadata or {}
            if (marks.get(b"base"), marks.get(b"version")) != (base.name.encode(), version.encode()):
                return None
            rows = pa.ipc.open_stream(file).read_all() if marks[b"has_rows"] else None
            return Changes(rows, gone["gone"].to_pylist())
    except (OSError, KeyError, pa.ArrowException):
        return None
