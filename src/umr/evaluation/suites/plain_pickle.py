"""Reading a pickle file of plain values without running anything in it.

A pickle is a small program whose dangerous steps look up and call Python objects. This reader knows the steps that build lists, tuples,
dictionaries, strings and numbers, and refuses every other, so it can read a data file and nothing else.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from umr.errors import DataError

_SKIPPED = {"PROTO", "FRAME", "STOP"}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type[Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_ARGUMENTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
}
_STORES, _LOADS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_FIXED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_plain(path: Path) -> Any:
    """The value in a pickle file that holds nothing but plain values.

    Raises:
        DataError: it cannot be read, is damaged, or holds anything else. Names the file.
    """
    try:
        return _Reader().run(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except _Refused as error:
        raise DataError(
            f"{path}: holds more than lists, dictionaries, strings and numbers ({error}), which is not read for safety"
        ) from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is no whole pickle file ({error}); fetch it again") from error


class _Refused(Exception):
    pass


class _Reader:
    """The stack machine, with `_marks` for places in the stack and `_memo` for values met before."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            self._step(opcode.name, argument)
        (value,) = self._stack
        return value

    def _step(self, name: str, argument: Any) -> None:
        if name in _SKIPPED:
            return
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name in _ARGUMENTS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _STORES or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in _LOADS:
            self._stack.append(self._memo[argument])
        else:
            self._build(name)

    def _build(self, name: str) -> None:
        if name in _MARKED:
            values = self._popped()
            self._stack.append(_MARKED[name](values))
        elif name in _FIXED_TUPLES:
            count = _FIXED_TUPLES[name]
            self._stack[-count:] = [tuple(self._stack[-count:])]
        elif name in ("APPEND", "APPENDS"):
            values = self._popped() if name == "APPENDS" else [self._stack.pop()]
            self._stack[-1].extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = self._popped() if name == "SETITEMS" else [self._stack.pop(-2), self._stack.pop()]
            self._stack[-1].update(_pairs(values))
        else:
            raise _Refused(name)

    def _popped(self) -> list[Any]:
        start = self._marks.pop()
        values, self._stack = self._stack[start:], self._stack[:start]
        return values


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


_MARKED: dict[str, Callable[[list[Any]], Any]] = {"LIST": list, "TUPLE": tuple, "DICT": _pairs}
