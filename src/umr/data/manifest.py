"""Manifests: JSONL or Parquet files with an item a row, whose media lie beside them, by row and without holding them.

    {"id": "shoe-17", "text": "a red shoe", "image": "images/17.jpg"}

The item is `text`, `image`, `video`, or one of the latter with `text`. Paths are relative to the manifest and must not lead out of its
folder. Other fields are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from umr.data.jsonl import Fault, JsonlIndex, Record
from umr.data.jsonl_scan import record_id
from umr.errors import DataError
from umr.items import Item

KEY = "id"
FIELDS = ("text", "image", "video")
SUFFIXES = (".jsonl", ".ndjson", ".parquet")


class JsonlManifest:
    """The rows of a JSONL file in its order. Can be sent to other processes, which open the file anew.

    Args:
        path: the file.

    Raises:
        DataError: no such file, or a line that makes no sense, with its number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = JsonlIndex(path, KEY, check=manifest_fault)
        self.ids: Sequence[str] = self.index.ids

    def items(self, start: int, stop: int) -> list[Item]:
        """The items of rows `start` to `stop`."""
        return [_item(self.index.at(row), self.path.parent) for row in range(start, min(stop, len(self.index)))]


class ParquetManifest:
    """The rows of a Parquet file in its order; one row group is in memory at a time. Can be sent to other processes.

    Args:
        path: the file; `id` holds texts, or whole numbers, which are taken as texts.

    Raises:
        DataError: no such file, no Parquet file, or without usable ids.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
            present = [name for name in FIELDS if name in self._file.schema_arrow.names]
            if KEY not in self._file.schema_arrow.names or not present:
                raise DataError(f"{path}: needs a column id, and one of {', '.join(FIELDS)}")
            ids = self._file.read(columns=[KEY])[KEY].cast(pa.string())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        except pa.ArrowException as error:
            raise DataError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
        self.ids: Sequence[str] = ArrowIds(_usable(ids, path))
        self._columns = [KEY, *present]
        groups = self._file.metadata
        self._starts = np.cumsum([0] + [groups.row_group(number).num_rows for number in range(groups.num_row_groups)])
        self._held: tuple[int, pa.Table] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetManifest, (self.path,)

    def items(self, start: int, stop: int) -> list[Item]:
        """The items of rows `start` to `stop`. Raises `DataError` for a row that makes no sense, with its number."""
        found: list[Item] = []
        while start < min(stop, int(self._starts[-1])):
            number = int(np.searchsorted(self._starts, start, side="right")) - 1
            first, end = int(self._starts[number]), min(stop, int(self._starts[number + 1]))
            rows = self._group(number).slice(start - first, end - start).to_pylist()
            found += [self._checked(row, start + place) for place, row in enumerate(rows)]
            start = end
        return found

    def _group(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            try:
                self._held = number, self._file.read_row_group(number, columns=self._columns)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{self.path}: row group {number} cannot be read ({str(error).splitlines()[0]})") from error
        return self._held[1]

    def _checked(self, row: Record, number: int) -> Item:
        row[KEY] = self.ids[number]
        if (fault := manifest_fault(row)) is not None:
            raise DataError(f"{self.path}: row {number + 1} {fault[1]}")
        return _item(row, self.path.parent)


class ArrowIds(Sequence[str]):
    """An Arrow column of ids as a sequence of texts, made as they are asked for."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            start, stop, _ = place.indices(len(self))
            found: list[str] = self._column.slice(start, max(0, stop - start)).to_pylist()
            return found
        one: str = self._column[place].as_py()
        return one


def open_manifest(path: Path) -> JsonlManifest | ParquetManifest:
    """The reader for a manifest, by the end of its name.

    Raises:
        DataError: as of the readers.
    """
    return ParquetManifest(path) if path.suffix.lower() == ".parquet" else JsonlManifest(path)


def manifest_fault(record: Record) -> Fault | None:
    """What is wrong with a row."""
    try:
        record_id(record, KEY)
    except DataError as error:
        return "malformed", str(error)
    for name in FIELDS:
        if not isinstance(record.get(name), str | None):
            return "malformed", f"has a field {name} that is {type(record[name]).__name__}, not a string"
    if not any(record.get(name) for name in FIELDS):
        return "malformed", "holds nothing to embed; give it text, image or video"
    if record.get("image") and record.get("video"):
        return "malformed", "has both an image and a video; make two rows of it"
    path = record.get("image") or record.get("video") or ""
    if path[:1] in ("/", "\\") or "\0" in path or ".." in PurePosixPath(path.replace("\\", "/")).parts:
        return "malformed", f"names {path!r}, which lies outside the manifest's folder; media must be inside"
    return None


def _item(record: Record, root: Path) -> Item:
    media = {name: root / record[name] for name in ("image", "video") if record.get(name)}
    return Item.of(text=record.get("text"), id=record[KEY], **media)


def _usable(ids: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    if ids.null_count or pc.any(pc.equal(ids, "")).as_py():
        raise DataError(f"{path}: a row has no id; every row needs one")
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        again = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
        raise DataError(f"{path}: id {again[0].as_py()!r} is there twice; ids must be unique")
    return ids
