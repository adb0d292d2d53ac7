"""The one pass over a JSON-lines file that finds where every usable record starts and what its id is."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from umr.data.ids import pack
from umr.errors import DataError
from umr.progress import Bar, progress

Record: TypeAlias = dict[str, Any]
OnError: TypeAlias = Literal["fail", "skip"]
Fault: TypeAlias = tuple[str, str]
"""Kind (see `Problem.kind`) and description of what is wrong with a record."""
RecordCheck: TypeAlias = Callable[[Record], Fault | None]

REPORT_FROM_BYTES = 64 * 2**20
"""Scanning a file at least this large reports its progress."""
_MEGABYTE = 10**6


@dataclass(frozen=True)
class Problem:
    """A line that was left out or complained of.

    Attributes:
        kind: `"malformed"`, `"duplicate"`, `"missing media"`, `"positive outside pool"` or `"unknown id"`.
        path: the file.
        line: line number from 1.
        what: what is wrong.
    """

    kind: str
    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


@dataclass(frozen=True)
class Scan:
    """The usable records of a file, in file order.

    Attributes:
        offsets_R: byte at which the line of a record starts, int64.
        keys_R: `umr.data.ids.pack` of its id, uint64; all 0 for records without ids.
        order_R: rows in ascending order of their keys, equal keys in file order, int64.
        problems: lines left out.
    """

    offsets_R: npt.NDArray[np.int64]
    keys_R: npt.NDArray[np.uint64]
    order_R: npt.NDArray[np.int64]
    problems: tuple[Problem, ...]


def record_id(record: object, key: str) -> str:
    """The id in field `key` of a parsed line. Raises `DataError` saying what is wrong."""
    if not isinstance(record, dict):
        raise DataError(f"must hold a JSON object, not {type(record).__name__}")
    id = record.get(key)
    if not isinstance(id, str) or not id:
        raise DataError(f"must have a non-empty string {key!r}" + (f", not {id!r}" if key in record else ""))
    return id


def scan(path: Path, size: int, key: str | None, on_error: OnError, unique: bool, check: RecordCheck | None) -> Scan:
    """Parse every line of `path`, which is `size` bytes long; the other arguments are those of `JsonlIndex`.

    Raises:
        DataError: an unusable line under `on_error="fail"`, or two different ids with one hash.
    """
    problems: list[Problem] = []

    def complain(kind: str, line: int, what: str) -> None:
        problem = Problem(kind, path, line, what)
        if on_error == "fail":
            raise DataError(str(problem))
        problems.append(problem)

    if size < REPORT_FROM_BYTES:
        offsets, keys, lines = _read(path, key, check, complain, None)
    else:
        with progress(f"indexing {path.name}", size // _MEGABYTE, "MB") as bar:
            offsets, keys, lines = _read(path, key, check, complain, bar)
    offsets_R, keys_R = np.frombuffer(offsets, np.int64), np.frombuffer(keys, np.uint64)
    order_R = np.argsort(keys_R, kind="stable")
    if unique and key is not None:
        keep_R = _without_duplicates(path, key, offsets_R, keys_R, order_R, lines, complain)
        if not keep_R.all():
            offsets_R, keys_R = offsets_R[keep_R], keys_R[keep_R]
            order_R = np.argsort(keys_R, kind="stable")
    return Scan(offsets_R, keys_R, order_R, tuple(problems))


def _read(
    path: Path, key: str | None, check: RecordCheck | None, complain: Callable[[str, int, str], None], bar: Bar | None
) -> tuple[array[int], array[int], array[int]]:
    """Offsets, keys and line numbers of the usable lines."""
    offsets, keys, lines = array("q"), array("Q"), array("Q")
    position = reported = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            start, position = position, position + len(line)
            if bar and position - reported > _MEGABYTE:
                bar.advance((position - reported) // _MEGABYTE)
                reported += (position - reported) // _MEGABYTE * _MEGABYTE
            if line.isspace():
                continue
            fault, packed = _examine(line, key, check)
            if fault:
                complain(fault[0], number, fault[1])
                continue
            offsets.append(start)
            keys.append(packed)
            lines.append(number)
    return offsets, keys, lines


def _examine(line: bytes, key: str | None, check: RecordCheck | None) -> tuple[Fault | None, int]:
    """What is wrong with a line, or else the key of its id."""
    try:
        record = json.loads(line.decode())
        packed = pack(record_id(record, key)) if key is not None else 0
        if not isinstance(record, dict):
            raise DataError(f"must hold a JSON object, not {type(record).__name__}")
        return (check(record) if check else None), packed
    except json.JSONDecodeError as error:
        what = f"is not valid JSON ({error.msg}, column {error.colno})"
    except UnicodeDecodeError as error:
        what = f"is not valid UTF-8 (byte {error.start + 1})"
    except RecursionError:
        what = "is not usable JSON (nested too deeply)"
    except DataError as error:
        what = str(error)
    return ("malformed", what), 0


def _without_duplicates(
    path: Path,
    key: str,
    offsets_R: npt.NDArray[np.int64],
    keys_R: npt.NDArray[np.uint64],
    order_R: npt.NDArray[np.int64],
    lines: array[int],
    complain: Callable[[str, int, str], None],
) -> npt.NDArray[np.bool_]:
    """Which rows stay when of every id only the first one does."""
    keep_R = np.ones(len(keys_R), bool)
    sorted_R = keys_R[order_R]
    first_of: dict[int, int] = {}
    for place in np.flatnonzero(sorted_R[1:] == sorted_R[:-1]):
        before, row = int(order_R[place]), int(order_R[place + 1])
        first_of[row] = first_of.get(before, before)
    with path.open("rb") as file:
        for row in sorted(first_of):
            first = first_of[row]
            ids = []
            for r in (first, row):
                file.seek(int(offsets_R[r]))
                ids.append(record_id(json.loads(file.readline().decode()), key))
            if ids[0] != ids[1]:
                raise DataError(f"{path}: the ids {ids[0]!r} and {ids[1]!r} have the same 64-bit hash; rename one of them")
            complain("duplicate", lines[row], f"{key} {ids[0]!r} was already used in line {lines[first]}")
            keep_R[row] = False
    return keep_R
