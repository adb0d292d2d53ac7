"""Rows of texts out of the files that pair data comes in: JSON lines, JSON, Parquet.

However large the file, a row is at hand at once: JSON lines are reached by offset; the wanted columns of a Parquet file are
copied once into an uncompressed temporary file, which is memory-mapped; a JSON file, which can only be read whole, is held as
Arrow columns.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from umr.data.jsonl import JsonlIndex, Record, RecordCheck
from umr.errors import DataError

_BATCH = 8192


@dataclass(frozen=True)
class Layout:
    """What the rows of one kind of data hold.

    Attributes:
        columns: names of the texts in a row.
        read: makes them from a record, or raises `ValueError` with what is wrong. A function of a module, so that it can be pickled.
        fault: the same as a check for `JsonlIndex`.
        fields: names that records may use; of a Parquet file only these columns are read.
    """

    columns: tuple[str, ...]
    read: Callable[[Record], tuple[str, ...]]
    fault: RecordCheck
    fields: tuple[str, ...]


class Rows(Protocol):
    """Random access to rows of texts."""

    def __len__(self) -> int: ...

    def at(self, row: int) -> tuple[str, ...]:
        """Row `row`, from 0, which must exist."""
        ...


def open_rows(path: Path, layout: Layout) -> Rows:
    """Open a file by its suffix: `.jsonl`, `.json` (a list, or an object of records by name) or `.parquet`.

    Raises:
        DataError: no such file, another kind of file, or an unusable record, with its row or line, counted from 1.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".json", ".parquet"):
        raise DataError(f"{path}: pairs of this kind are read from .jsonl, .json and .parquet files")
    if not path.is_file():
        raise DataError(f"{path}: cannot be read ({'it is no file' if path.exists() else 'it does not exist'})")
    if suffix == ".parquet":
        return ArrowRows(path, layout, _parquet_records)
    if suffix == ".json" and not _is_json_lines(path):
        return ArrowRows(path, layout, _json_records)
    return JsonlRows(path, layout)


class JsonlRows:
    """Rows of a JSON-lines file."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._index, self._read = JsonlIndex(path, key=None, check=layout.fault), layout.read

    def __len__(self) -> int:
        return len(self._index)

    def at(self, row: int) -> tuple[str, ...]:
        """See `Rows`."""
        return self._read(self._index.at(row))


class ArrowRows:
    """Rows copied into a memory-mapped Arrow file that vanishes with the process. Pickling carries the arguments.

    Args:
        path: the file.
        layout: what is wanted of it.
        records: reads its records.
    """

    def __init__(self, path: Path, layout: Layout, records: Callable[[Path, Layout], Iterable[Record]]) -> None:
        import pyarrow as pa

        self._arguments = (path, layout, records)
        schema = pa.schema([(name, pa.large_string()) for name in layout.columns])
        with tempfile.NamedTemporaryFile(prefix="umr-pairs-") as file:
            with pa.ipc.new_file(file.name, schema) as writer:
                rows = _checked(path, layout, records(path, layout))
                while batch := list(islice(rows, _BATCH)):
                    writer.write_batch(
                        pa.record_batch([pa.array(column, pa.large_string()) for column in zip(*batch, strict=True)], schema)
                    )
            # The mapping outlives the name.
            self._batches = pa.ipc.open_file(pa.memory_map(file.name))
        self._count = (
            (self._batches.num_record_batches - 1) * _BATCH + self._batches.get_batch(self._batches.num_record_batches - 1).num_rows
            if self._batches.num_record_batches
            else 0
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrowRows, self._arguments

    def __len__(self) -> int:
        return self._count

    def at(self, row: int) -> tuple[str, ...]:
        """See `Rows`."""
        batch = self._batches.get_batch(row // _BATCH)
        return tuple(column[row % _BATCH].as_py() for column in batch.columns)


def _checked(path: Path, layout: Layout, records: Iterable[Record]) -> Iterator[tuple[str, ...]]:
    for number, record in enumerate(records, 1):
        try:
            if not isinstance(record, dict):
                raise ValueError(f"an object is expected, not {type(record).__name__}")
            yield layout.read(record)
        except ValueError as error:
            raise DataError(f"{path}: row {number}: {error}") from error


def _json_records(path: Path, layout: Layout) -> Iterable[Record]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from error
    if isinstance(content, dict):
        return list(content.values())
    if isinstance(content, list):
        return content
    raise DataError(f"{path}: a list of records is expected, or an object of records by name, not {type(content).__name__}")


def _parquet_records(path: Path, layout: Layout) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            wanted = [name for name in layout.fields if name in there]
            if not wanted:
                raise DataError(f"{path}: has none of the columns {', '.join(layout.fields)}; it has {', '.join(there) or 'none'}")
            for batch in file.iter_batches(_BATCH, columns=wanted):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a readable Parquet file ({str(error).splitlines()[0]})") from error


def _is_json_lines(path: Path) -> bool:
    """Whether a `.json` file holds one object a line: its first line is an object that is complete and not all there is."""
    with path.open("rb") as file:
        first = file.readline(1 << 20).strip()
        if not (first.startswith(b"{") and first.endswith(b"}") and file.read(1 << 16).strip()):
            return False
    try:
        json.loads(first)
    except ValueError:
        return False
    return True
