"""What has changed in a table since its index was built: found by comparing when each row was written, kept beside the index.

Comparing takes a second or so for a million rows, and so is spared where the same changes have been found before.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from umr import files
from umr.search.columns import CHANGED
from umr.search.derived import DELTA, SCANNED, Scan, flush
from umr.search.following import Snapshot
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


def changes_since(base: Sequence[Partition], scan: Scan, most: int) -> Changes | None:
    """Compare a table with its index.

    Args:
        base: the index as it was built.
        scan: gives all rows of the table as it is.
        most: give up where there are more changes, which need a new index: None is returned.
    """
    tables = [one.columns.table.select(("id", CHANGED)) for one in base]
    before = Snapshot.of("", lambda _: (batch for table in tables for batch in table.to_batches()))
    new, gone = Snapshot.of("", scan).changed_since(before)
    if len(new) + len(gone) > most:
        return None
    if not new:
        return Changes(None, gone)
    wanted = pa.array(new, pa.string())
    tables_now = (pa.table(batch) if not isinstance(batch, pa.Table) else batch for batch in scan(SCANNED))
    found = [table.filter(pc.is_in(table["id"], value_set=wanted)) for table in tables_now]
    return Changes(pa.concat_tables(found), gone)


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
