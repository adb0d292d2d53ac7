"""Random access to the records of a JSON-lines file by id, without holding them.

One pass over the file parses every line and keeps, per record, three 64-bit numbers: where the line starts, the key of its
id (`umr.data.ids`), and the row's place in key order. That is 24 bytes a record on disk and memory-mapped, so 5.6 million
candidates cost 135 MB of page cache and no Python objects.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from umr.data.ids import HASHED, pack, unpack
from umr.data.jsonl_scan import Fault, OnError, Problem, Record, RecordCheck, record_id, scan
from umr.errors import DataError

__all__ = ["Fault", "Ids", "JsonlIndex", "OnError", "Problem", "Record", "RecordCheck"]

CACHE_FROM_BYTES = 64 * 2**20
"""Files at least this large keep their index on disk, in `.umr-index` beside them or else in the user's cache folder."""

_VERSION = 1  # part of the name of an index on disk; raise it when what is stored, or what is checked, changes
_BLOCK = 1 << 20


class JsonlIndex:
    """The records of one file, by id and by row; rows are the records in file order, from 0.

    Safe to share between threads and forked processes. Pickling carries the arguments, and the copy opens the file anew.

    Args:
        path: the file, UTF-8, one JSON object a line; empty lines are passed over.
        key: the field that holds the id, a non-empty string. `None` for records without ids, which are reached by row alone.
        on_error: `"fail"` raises at the first unusable line; `"skip"` leaves such lines out and lists them in `problems`.
            An index made with `"skip"` is never kept on disk, since what it leaves out may be mended.
        unique: whether an id may occur once only; of duplicates the first stays. `False` for upsampled training files.
        check: a function that returns what is wrong with a record, or `None`. An index is kept on disk under the
            function's name.

    Attributes:
        path: the file.
        problems: lines left out under `"skip"`.

    Raises:
        DataError: no such file, or an unusable line under `"fail"`, with file and line.
    """

    def __init__(
        self, path: Path, key: str | None = "did", on_error: OnError = "fail", unique: bool = True, check: RecordCheck | None = None
    ) -> None:
        self.path = path
        self.problems: tuple[Problem, ...] = ()
        self._key, self._arguments = key, (path, key, on_error, unique, check)
        if not path.is_file():
            raise DataError(f"{path}: {'is not a file' if path.exists() else 'does not exist'}")
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
        weakref.finalize(self, os.close, self._fd)
        self._size = os.fstat(self._fd).st_size
        columns_3R = self._load_or_build()
        self._offsets_R, self._order_R = np.asarray(columns_3R[0]), np.asarray(columns_3R[2])
        self._keys_R = np.asarray(columns_3R[1]).view(np.uint64)

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonlIndex, self._arguments

    def __len__(self) -> int:
        return len(self._offsets_R)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and bool(self.find([id])[0] >= 0)

    def __getitem__(self, id: str) -> Record:
        """The record of an id. Raises `DataError` when there is none."""
        return self.at(self.row(id))

    def get_many(self, ids: Sequence[str]) -> list[Record]:
        """The records of `ids` in their order, read in the order of the file. Raises `DataError` naming a missing one."""
        rows_N = self.find(ids)
        if (rows_N < 0).any():
            raise self._missing(ids[int(np.argmax(rows_N < 0))])
        records: list[Record] = [{}] * len(ids)
        for place in np.argsort(rows_N, kind="stable"):
            records[place] = self.at(int(rows_N[place]))
        return records

    def find(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows of `ids`, shape (N,); -1 where there is none. Where an id occurs more than once, its first row."""
        self._need_ids()
        wanted_N = np.fromiter((pack(id) for id in ids), np.uint64, len(ids))
        if len(self) == 0 or len(ids) == 0:
            return np.full(len(ids), -1, np.int64)
        places_N = np.searchsorted(self._keys_R, wanted_N, sorter=self._order_R)
        rows_N = self._order_R[np.minimum(places_N, len(self) - 1)]
        rows_N = np.where(self._keys_R[rows_N] == wanted_N, rows_N, -1)
        for place in np.flatnonzero((wanted_N >= HASHED) & (rows_N >= 0)):  # a hash may be that of another id
            if self.id_at(int(rows_N[place])) != ids[int(place)]:
                rows_N[place] = -1
        return rows_N

    def row(self, id: str) -> int:
        """Row of an id. Raises `DataError` when there is none."""
        row = int(self.find([id])[0])
        if row < 0:
            raise self._missing(id)
        return row

    def at(self, row: int) -> Record:
        """The record of a row, read from the file."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} in {self.path}")
        try:
            record: Record = json.loads(self._line_bytes(row).decode())
            if self._key is not None and pack(record_id(record, self._key)) != int(self._keys_R[row]):
                raise DataError("holds another id")
        except (ValueError, DataError) as error:
            raise DataError(f"{self.path}: was changed after it was indexed; start again") from error
        return record

    @property
    def ids(self) -> Ids:
        """All ids in file order, made as they are asked for."""
        return Ids(self)

    def id_at(self, row: int) -> str:
        """The id of a row."""
        key = self._need_ids()
        id = unpack(int(self._keys_R[row]))
        return id if id is not None else str(self.at(row)[key])

    def line(self, row: int) -> int:
        """The line number of a row, from 1. Reads the file up to there: for messages, not for loops."""
        return 1 + self._newlines(0, int(self._offsets_R[row]))

    def numbered(self) -> Iterator[tuple[int, Record]]:
        """All records in file order with their line numbers, in one pass."""
        line, position = 1, 0
        for row in range(len(self)):
            offset = int(self._offsets_R[row])
            line += self._newlines(position, offset)
            position = offset
            yield line, self.at(row)

    def _need_ids(self) -> str:
        if self._key is None:
            raise DataError(f"{self.path}: was opened without a key, so its records have no ids")
        return self._key

    def _newlines(self, start: int, end: int) -> int:
        count = 0
        while start < end:
            block = os.pread(self._fd, min(_BLOCK, end - start), start)
            if not block:
                break
            count += block.count(b"\n")
            start += len(block)
        return count

    def _line_bytes(self, row: int) -> bytes:
        start = int(self._offsets_R[row])
        end = int(self._offsets_R[row + 1]) if row + 1 < len(self) else self._size
        return os.pread(self._fd, end - start, start).split(b"\n", 1)[0]  # lines that were left out may follow

    def _missing(self, id: str) -> DataError:
        return DataError(f"{self.path}: has no record with {self._key} {id!r}")

    def _load_or_build(self) -> npt.NDArray[np.int64]:
        """Rows of the result: offsets, keys (to be viewed as uint64), order; memory-mapped for a large file."""
        _, key, on_error, unique, check = self._arguments
        large = self._size >= CACHE_FROM_BYTES and on_error == "fail"
        places = [folder / f"{self.path.name}.{self._state()}.npy" for folder in _cache_folders(self.path)] if large else []
        for place in places:
            kept_3R = _load(place)
            if kept_3R is not None:
                return kept_3R
        found = scan(self.path, self._size, key, on_error, unique, check)
        self.problems = found.problems
        columns_3R = np.stack([found.offsets_R, found.keys_R.view(np.int64), found.order_R])
        del found
        for place in places:
            if _save(columns_3R, place, self.path.name):
                kept_3R = _load(place)
                return columns_3R if kept_3R is None else kept_3R
        return columns_3R

    def _state(self) -> str:
        """Hash over what the index depends on: size, time and both ends of the file, and how it is read."""
        _, key, _, unique, check = self._arguments
        stat = os.fstat(self._fd)
        name = f"{check.__module__}.{check.__qualname__}" if check else ""
        how = repr((_VERSION, stat.st_size, stat.st_mtime_ns, key, unique, name)).encode()
        ends = os.pread(self._fd, _BLOCK, 0) + os.pread(self._fd, _BLOCK, max(0, stat.st_size - _BLOCK))
        return hashlib.blake2b(how + ends, digest_size=10).hexdigest()


class Ids(Sequence[str]):
    """The ids of an index in file order; nothing is stored."""

    def __init__(self, index: JsonlIndex) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self._index.id_at(row) for row in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"id {place} of {len(self)}")
        return self._index.id_at(place % len(self))

    def __contains__(self, id: object) -> bool:
        return id in self._index


def _cache_folders(path: Path) -> list[Path]:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [path.parent / ".umr-index", home / "umr" / "index" / hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()]


def _load(place: Path) -> npt.NDArray[np.int64] | None:
    try:
        columns_3R: npt.NDArray[np.int64] = np.load(place, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, or damaged by a machine that went down: made again
        return None
    return columns_3R if columns_3R.ndim == 2 and columns_3R.shape[0] == 3 and columns_3R.dtype == np.int64 else None


def _save(columns_3R: npt.NDArray[np.int64], place: Path, of: str) -> bool:
    """Write an index to `place` and remove what is stale there; `False` where the folder cannot be written."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=".new.")
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, columns_3R, allow_pickle=False)
        os.chmod(temporary, 0o644)  # mkstemp makes it private, and the data are shared
        os.replace(temporary, place)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            return False
        raise
    for old in place.parent.glob("*.npy"):
        if old != place and old.name.rsplit(".", 2)[0] == of:
            old.unlink(missing_ok=True)
    return True
