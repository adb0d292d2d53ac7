"""Which files a version of a Lance table is made of, read from the version's manifest.

After a power cut Lance itself notices a damaged file only when a search reads it, and a manifest full of zeros not at all.
The parts of the format that are used here are in Lance's specification of tables (`protos/table.proto`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"LANC"
_NEWEST = 2**64 - 1
"""A manifest is named by this less its version, so that the newest comes first."""

_FRAGMENTS, _INDEXES = 2, 6  # of a manifest; the second is a place in its file
_ID, _FILES, _DELETIONS = 1, 2, 3  # of a fragment
_PATH, _SIZE = 1, 6  # of a data file
_KIND, _READ_VERSION, _NUMBER = 1, 2, 3  # of a file of deletions
_INDEX = 1  # of the section of indexes
_UUID, _NAME, _INDEX_FILES = 1, 3, 10  # of an index
_INDEX_PATH, _INDEX_SIZE = 1, 2  # of a file of an index

Message = dict[int, list[int | bytes]]


@dataclass(frozen=True)
class File:
    """A file that a version needs, and its size; 0 where the manifest does not say."""

    path: Path
    size: int

    @property
    def lost(self) -> bool:
        """Whether it is not there, or not with its size."""
        try:
            real = self.path.stat().st_size
        except FileNotFoundError:
            return True
        return real == 0 or (self.size > 0 and real != self.size)


@dataclass(frozen=True)
class Contents:
    """What a version is made of: files of rows, and files of each index by its name."""

    rows: tuple[File, ...]
    indexes: dict[str, tuple[File, ...]]

    @property
    def readable(self) -> bool:
        """Whether all its rows are there."""
        return not any(file.lost for file in self.rows)

    @property
    def lost_indexes(self) -> list[str]:
        """Names of indexes that are not all there."""
        return [name for name, files in self.indexes.items() if any(file.lost for file in files)]


def versions(table: Path) -> list[tuple[int, Path]]:
    """Version and manifest of every version of a table, newest first."""
    names = sorted((table / "_versions").glob("*.manifest"))
    return [(_NEWEST - int(path.stem), path) for path in names if path.stem.isdigit()]


def read(table: Path, manifest: Path) -> Contents | None:
    """What a manifest names; None where it did not reach the disk whole."""
    data = manifest.read_bytes()
    if len(data) < 20 or data[-4:] != _MAGIC:
        return None
    try:
        message = _section(data, int.from_bytes(data[-16:-8], "little"))
        indexes: dict[str, tuple[File, ...]] = {}
        if message.get(_INDEXES):
            for index in _children(_section(data, _number(message, _INDEXES)), _INDEX):
                name = _text(index, _NAME)
                indexes[name] = indexes.get(name, ()) + tuple(_index_files(table, index))
        return Contents(tuple(_row_files(table, message)), indexes)
    except (IndexError, ValueError):
        return None


def _section(data: bytes, start: int) -> Message:
    length = int.from_bytes(data[start : start + 4], "little")
    body = data[start + 4 : start + 4 + length]
    if not body or len(body) != length:
        raise ValueError("torn")
    return _parse(body)


def _row_files(table: Path, message: Message) -> Iterator[File]:
    for fragment in _children(message, _FRAGMENTS):
        for file in _children(fragment, _FILES):
            yield File(table / "data" / _text(file, _PATH), _number(file, _SIZE))
        for deletions in _children(fragment, _DELETIONS):
            suffix = "bin" if _number(deletions, _KIND) else "arrow"
            name = f"{_number(fragment, _ID)}-{_number(deletions, _READ_VERSION)}-{_number(deletions, _NUMBER)}.{suffix}"
            yield File(table / "_deletions" / name, 0)


def _index_files(table: Path, index: Message) -> Iterator[File]:
    for name in _children(index, _UUID):
        (raw,) = name[1]
        folder = table / "_indices" / str(uuid.UUID(bytes=raw if isinstance(raw, bytes) else b""))
        for file in _children(index, _INDEX_FILES):
            yield File(folder / _text(file, _INDEX_PATH), _number(file, _INDEX_SIZE))


def _parse(data: bytes) -> Message:
    """A protocol buffer's fields by number; `ValueError` or `IndexError` where these bytes are none."""
    message: Message = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 2, 5):
            length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"wire type {kind}")
        if number == 0 or at > len(data):
            raise ValueError("not a message")
        message.setdefault(number, []).append(value)
    return message


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _children(message: Message, number: int) -> Iterator[Message]:
    return (_parse(value) for value in message.get(number, ()) if isinstance(value, bytes))


def _number(message: Message, number: int) -> int:
    value = message.get(number, [0])[-1]
    return value if isinstance(value, int) else 0


def _text(message: Message, number: int) -> str:
    value = message.get(number, [b""])[-1]
    return value.decode() if isinstance(value, bytes) else ""
