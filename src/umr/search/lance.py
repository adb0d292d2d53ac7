"""A collection's rows in LanceDB, embedded: the default `Table`.

In the collection's folder lie `rows.lance` and `files.lance`, tables of LanceDB; `index`, what fast search derives from the
rows; and `.lock`, which writers hold one at a time. Readers need no lock: they read versions, which never change.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.errors import StoreError, UmrError
from umr.search import upkeep
from umr.search.durability import Flusher, locked
from umr.search.filters import ROW_FIELDS, Filter
from umr.search.following import Snapshot
from umr.search.healing import damaged, heal
from umr.search.lance_rows import FILES, PAYLOAD, files_to_arrow, from_arrow, one_of, schema, to_arrow
from umr.search.metadata import filter_columns
from umr.search.rows import Row, SourceFile
from umr.search.table import Near

if TYPE_CHECKING:
    from umr.search.tier import Tier

logger = logging.getLogger("umr.search")

ROWS, RECORDS, LOCK, INDEX = "rows", "files", ".lock", "index"
_KEYS, _RECORD_KEYS = ("id", "source"), ("path",)
_BATCH = 1 << 16
_WIDE_BATCH = 1 << 13  # of rows with vectors or thumbnails
_WIDE = frozenset({"vector", "thumbnail"})
_ASKED = 1000  # ids in one condition
_FOLLOWED = 4096  # changed rows that are brought into fast search one by one


class LanceTable:
    """Rows and files of one collection. Several threads and processes may use it at once.

    Make one with `create` or `open`.

    Attributes:
        folder: of the collection.
        dimension: length of a vector.
    """

    def __init__(self, folder: Path, fresh: bool) -> None:
        import lancedb

        self.folder = folder
        # Zero: every read looks whether there is a newer version. None: never.
        self._db = lancedb.connect(folder, read_consistency_interval=timedelta(0) if fresh else None)
        self._rows, self._files = self._db.open_table(ROWS), self._db.open_table(RECORDS)
        self.dimension: int = self._rows.schema.field("vector").type.list_size
        self._flusher: Flusher | None = None
        self._following = threading.Lock()
        self._tier: Tier | None = None
        self._followed: Snapshot | None = None

    @classmethod
    def create(cls, folder: Path, dimension: int) -> LanceTable:
        """Make the tables of an empty collection.

        Args:
            folder: of the collection; made when missing. What an interrupted `create` left in it is made anew.
            dimension: length of a vector.

        Raises:
            StoreError: there are rows already, or the folder cannot be written.
        """
        folder = Path(folder)
        tables = [folder / f"{name}.lance" for name in (ROWS, RECORDS)]
        with _reported(folder), locked(folder / LOCK):
            if any((table / "data").is_dir() and any((table / "data").iterdir()) for table in tables):
                raise StoreError(f"{folder}: holds rows of a collection already; open it, or choose another folder")
            import lancedb

            for leftover in (*tables, folder / INDEX):
                shutil.rmtree(leftover, ignore_errors=True)
            flusher = Flusher(*tables)
            db = lancedb.connect(folder)
            db.create_table(RECORDS, schema=FILES)
            upkeep.make_index(db.create_table(ROWS, schema=schema(dimension)), upkeep.WORDS)
            flusher.flush()
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path, fresh: bool = True) -> LanceTable:
        """Open the tables of a collection; what a power cut has damaged is healed first, with a warning.

        Args:
            folder: of the collection.
            fresh: see what other processes write; else only what was there on opening, and what is written here.

        Raises:
            StoreError: there are none, or they are damaged beyond healing.
        """
        folder = Path(folder)
        for name in (ROWS, RECORDS):
            if not (folder / f"{name}.lance" / "_versions").is_dir():
                raise StoreError(f"{folder}: no rows of a collection here ({name}.lance is missing); index the folder again")
        with _reported(folder):
            if any(damaged(folder / f"{name}.lance") for name in (ROWS, RECORDS)):
                import lancedb

                with locked(folder / LOCK):
                    heal(lancedb.connect(folder), folder, ROWS, RECORDS)
            return cls(folder, fresh)

    def close(self) -> None:
        """Let go of what fast search holds in memory."""
        with self._following:
            self._tier = self._followed = None

    # --- changing

    def put(self, rows: Sequence[Row], files: Sequence[SourceFile]) -> None:
        """See `Table.put`. Raises `DataError` for a row that cannot be kept, before anything is changed."""
        with self._writing() as changed:
            new = to_arrow(rows, self.dimension, changed)
            own = one_of("source", [file.path for file in files]) if files else "false"
            there = {id for batch in self._read(("id",), own) for id in batch["id"].to_pylist()} if files else set()
            self._merge(new, own if there - {row.id for row in rows} else None)
            if files:
                self._flush()  # the records must not reach the disk before the rows
                merge = self._files.merge_insert("path").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(files_to_arrow(files))

    def add(self, rows: Sequence[Row]) -> None:
        """See `Table.add`. Raises `DataError` for a row that cannot be kept, before anything is changed."""
        with self._writing() as changed:
            self._merge(to_arrow(rows, self.dimension, changed), None)

    def delete(self, ids: Sequence[str]) -> int:
        """See `Table.delete`."""
        with self._writing():
            return self._delete(self._rows, "id", ids)

    def forget(self, sources: Sequence[str]) -> int:
        """See `Table.forget`."""
        with self._writing():
            rows = self._delete(self._rows, "source", sources)
            self._flush()
            self._delete(self._files, "path", sources)
            return rows

    def tidy(self) -> None:
        """After a bulk load: bring the index of words up to date and join small files, if there is much of either."""
        with self._writing():
            upkeep.tidy(self._rows, _KEYS, self._flush, now=True)
            upkeep.tidy(self._files, _RECORD_KEYS, self._flush, now=True)

    # --- reading

    def version(self) -> str:
        """See `Table.version`; here, it may change without a change to the rows."""
        with _reported(self.folder):
            return str(self._rows.version)

    def count(self, where: Filter | None = None) -> int:
        """See `Table.count`."""
        with _reported(self.folder):
            if not where:
                return int(self._rows.count_rows())
            batches = self._read(_needed(where))
            return sum(int(where.mask(filter_columns(pa.Table.from_batches([batch]), where.fields)).sum()) for batch in batches)

    def files(self) -> Iterator[SourceFile]:
        """See `Table.files`."""
        with _reported(self.folder):
            found = self._files.search().select(FILES.names).to_batches(_BATCH).read_all()
        for batch in found.sort_by("path").to_batches(max_chunksize=_BATCH):
            yield from (SourceFile(**record) for record in batch.to_pylist())

    def rows(self, ids: Sequence[str], vectors: bool = False) -> list[Row]:
        """See `Table.rows`."""
        columns = (*PAYLOAD, "vector") if vectors else PAYLOAD
        with _reported(self.folder):
            tier = self._tier
            found = {} if tier is None else tier.rows(ids, self.version(), vectors)
            wanted = [id for id in dict.fromkeys(ids) if id not in found]
            for start in range(0, len(wanted), _ASKED):
                for batch in self._read(columns, one_of("id", wanted[start : start + _ASKED])):
                    found |= {row.id: row for row in from_arrow(batch)}
        return [found[id] for id in ids if id in found]

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Table.scan`. Columns are those of `lance_rows.schema`."""
        with _reported(self.folder):
            yield from self._read(columns)

    def nearest(
        self, queries_QD: npt.NDArray[np.float32], k: int, where: Filter | None = None, modalities: Sequence[str] | None = None
    ) -> list[list[Near]]:
        """See `Table.nearest`."""
        return self._current_tier().nearest(queries_QD, k, where, modalities)

    def words(self, text: str, k: int, where: Filter | None = None, modalities: Sequence[str] | None = None) -> list[Near]:
        """See `Table.words`. Rows are filtered after they are found, so more and more are asked for until `k` of them pass."""
        if k < 1 or not text.strip() or (modalities is not None and not modalities):
            return []
        allowed = one_of("modality", modalities) if modalities is not None else None
        limit = max(64, 4 * k) if where else k
        with _reported(self.folder):
            while True:
                found = self._by_words(text, limit, allowed, _needed(where) if where else ("id",))
                passed = found.filter(pa.array(where.mask(filter_columns(found, where.fields)))) if where else found
                if len(passed) >= k or len(found) < limit:
                    best = passed.sort_by([("_score", "descending"), ("id", "ascending")]).slice(0, k)
                    return [Near(id, score) for id, score in zip(best["id"].to_pylist(), best["_score"].to_pylist(), strict=True)]
                limit *= 8

    # --- inside

    @contextmanager
    def _writing(self) -> Iterator[int]:
        """Hold the tables for writing; what was written is on the disk in the end. Yields the time, in nanoseconds."""
        with _reported(self.folder), locked(self.folder / LOCK):
            if self._flusher is None:
                self._flusher = Flusher(*(self.folder / f"{name}.lance" for name in (ROWS, RECORDS)))
            yield time.time_ns()
            self._flush()
            try:
                upkeep.tidy(self._rows, _KEYS, self._flush)
                upkeep.tidy(self._files, _RECORD_KEYS, self._flush)
            except (OSError, RuntimeError, ValueError) as error:  # what was asked for is done, and is not to look undone
                logger.warning("%s: the store could not be tidied (%s); searches get slower", self.folder, _first_line(error))
            self._flush()

    def _flush(self) -> None:
        if self._flusher is not None:
            self._flusher.flush()

    def _merge(self, new: pa.Table, replaced: str | None) -> None:
        """In one commit: insert or replace rows, and remove all others for which the condition `replaced` holds."""
        if not len(new):
            if replaced is not None:
                self._rows.delete(replaced)
            return
        merge = self._rows.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        (merge if replaced is None else merge.when_not_matched_by_source_delete(replaced)).execute(new)

    def _delete(self, table: Any, column: str, values: Sequence[str]) -> int:
        """Remove rows in one commit, or in none where there is nothing to remove."""
        if not values or not table.count_rows(condition := one_of(column, values)):
            return 0
        return int(table.delete(condition).num_deleted_rows)

    def _read(self, columns: Sequence[str], where: str | None = None, table: Any = None) -> Iterator[pa.RecordBatch]:
        query = (self._rows if table is None else table).search().select(list(columns))
        if where is not None:
            query = query.where(where)
        # Lance's own batches are of 1,024 rows, which makes reading a narrow column forty times slower.
        for batch in query.to_batches(_WIDE_BATCH if _WIDE & set(columns) else _BATCH):
            if batch.num_rows:
                yield batch.select(list(columns))

    def _by_words(self, text: str, limit: int, where: str | None, columns: Sequence[str]) -> pa.Table:
        from lancedb.query import MatchQuery

        # A `MatchQuery` has no operators: its text is cut into words, and that is all.
        words = MatchQuery(text, upkeep.WORDS)  # type: ignore[call-arg]  # its other arguments have defaults
        query = self._rows.search(words, query_type="fts").select([*columns, "_score"]).limit(limit)
        return (query if where is None else query.where(where)).to_arrow()

    def _current_tier(self) -> Tier:
        """Fast search over the rows as they are now: what has changed since it was last used is brought in first."""
        from umr.search.derived import SCANNED
        from umr.search.tier import Tier

        with self._following, _reported(self.folder):
            number = self._rows.version
            if self._tier is not None and self._followed is not None and self._followed.version == str(number):
                return self._tier
            at = self._db.open_table(ROWS)
            at.checkout(number)  # one version for all that is read, whatever is written meanwhile

            def scan(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
                return self._read(columns, table=at)

            now = Snapshot.of(str(number), scan)
            new, gone = now.changed_since(self._followed) if self._followed is not None else ([], [])
            if self._tier is None or self._followed is None or self._tier.worn or len(new) + len(gone) > _FOLLOWED:
                self._tier = Tier.open(scan, self.folder / INDEX, now.version, self.dimension)
            else:
                rows = self._read(SCANNED, one_of("id", new), at) if new else iter(())
                self._tier.refresh(now.version, rows, gone)
            self._followed = now
            return self._tier


def _needed(where: Filter) -> tuple[str, ...]:
    """Columns that a filter must be given."""
    own = tuple(name for name in ROW_FIELDS if name in where.fields and name != "id")
    return ("id", *own, *(("metadata",) if where.fields - set(ROW_FIELDS) else ()))


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Errors of LanceDB and of the disk as ours, in one line."""
    try:
        yield
    except UmrError:
        raise
    except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{folder}: the store failed ({_first_line(error)}); what was written before is still good") from error


def _first_line(error: Exception) -> str:
    """What LanceDB says, without the place in its sources."""
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r", /\S+\.rs:\d+:\d+$", "", said).removeprefix("lance error: ")[:300]
