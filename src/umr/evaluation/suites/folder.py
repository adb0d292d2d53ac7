"""Finding and reading a suite's files, with one line that says what is missing and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from umr.errors import DataError

T = TypeVar("T")
_KINDS = {str: "a string", int: "a whole number", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class Folder:
    """The folder of one suite.

    Attributes:
        suite: its name, for messages.
        root: the folder.
        source: where its files come from, for messages.
    """

    suite: str
    root: Path
    source: str

    def file(self, *names: str) -> Path:
        """The first of these files that is there. Raises `DataError`."""
        return self._first(names, "file")

    def folder(self, *names: str) -> Path:
        """The first of these folders that is there. Raises `DataError`."""
        return self._first(names, "folder")

    def has(self, name: str) -> bool:
        """Whether a file or folder is there."""
        return (self.root / name).exists()

    def _first(self, names: tuple[str, ...], kind: str) -> Path:
        for name in names:
            path = self.root / name
            if path.is_file() if kind == "file" else path.is_dir():
                return path
        raise DataError(f"{self.root}: {self.suite} needs the {kind} {' or '.join(names)}, which is missing; {self.source}")


def read_json(path: Path, kind: type[T]) -> T:
    """The content of a JSON file that is a list or an object. Raises `DataError` naming the file."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no JSON ({error}); fetch it again") from error
    if not isinstance(content, kind):
        raise DataError(f"{path}: must hold {_KINDS[kind]}, not {type(content).__name__}")
    return content


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list, each with its place for messages. Raises `DataError`."""
    yield from objects(read_json(path, list), str(path))


def objects(values: list[Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a list, each with its place for messages. Raises `DataError` for an empty list or something else in it."""
    if not values:
        raise DataError(f"{where}: is empty; fetch it again")
    for place, value in enumerate(values):
        if not isinstance(value, dict):
            raise DataError(f"{where}: record {place} must be an object, not {type(value).__name__}")
        yield f"{where}: record {place}", value


def get(record: dict[str, Any], name: str, kind: type[T], where: str) -> T:
    """A field of a record. Raises `DataError` where it is missing or of another kind."""
    value = record.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: {name} must be {_KINDS[kind]}, not {json.dumps(value, default=repr)[:60]}")
    return value


def number_or_text(record: dict[str, Any], name: str, where: str) -> str:
    """An id, which files write as a number or as a string."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"{where}: {name} must be a number or a string, not {json.dumps(value, default=repr)[:60]}")
    return str(value)


def texts_of(values: list[Any], where: str) -> list[str]:
    """A list of strings. Raises `DataError`."""
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"{where}: entry {place} must be a string, not {type(value).__name__}")
    return list(values)


def inside(folder: Path, name: str, where: str) -> Path:
    """A file of a folder by the name that an annotation gives it. Raises `DataError` where it leads out of the folder."""
    if not name or name[0] in "/\\" or "\0" in name or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise DataError(f"{where}: file name {name!r} leads out of {folder}")
    return folder / name
