"""Which rows may be found: conditions on their fields that must all hold.

Three ways to write the same filter:

    {"year": {"gte": 2020}, "colour": ["red", "blue"], "modality": "image"}     JSON, the HTTP API and Python
    ["year>=2020", 'colour=["red", "blue"]', "modality=image"]                  the command line
    Filter((Condition("year", "gte", 2020), ...))                               what both become

A field is a key of the user's metadata, or one of `id`, `source`, `modality`, `page`, `start` and `end`; a metadata key of
one of those names is asked for as `metadata.page`. Values have a kind: number, text, or true/false. Values of two kinds are
never equal and have no order. A field that holds a list holds several values, and one of them is enough.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.errors import DataError
from umr.search.masks import column_mask
from umr.search.rows import Row, Scalar

Op: TypeAlias = Literal["eq", "ne", "in", "not_in", "gt", "gte", "lt", "lte", "exists", "contains"]
OPS: tuple[str, ...] = get_args(Op)

ROW_FIELDS = ("id", "source", "modality", "page", "start", "end")
"""Fields of a row itself; every other name is a key of its metadata."""

_NEGATED = {"ne": "eq", "not_in": "in"}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
_SIGNS = {">=": "gte", "<=": "lte", "!=": "ne", "==": "eq", "=": "eq", ">": "gt", "<": "lt", "~": "contains"}
_WRITTEN = re.compile(r"\s*([^=<>!~]+?)\s*(>=|<=|!=|==|=|>|<|~)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """One thing asked of a row.

    Attributes:
        field: see the module.
        op: `eq`, `ne`, `gt`, `gte`, `lt`, `lte` compare with one value; texts are ordered by code points, so that ISO dates
            work, and true/false has no order. `in` and `not_in` take several values. `exists` takes true or false.
            `contains` is a substring of a text, or a member of a list. A row without the field fails all but `ne`, `not_in`
            and `exists: false`.
        value: one value; a tuple of them for `in` and `not_in`.

    Raises:
        DataError: an unknown op, or a value that does not fit it.
    """

    field: str
    op: Op
    value: Scalar | tuple[Scalar, ...]

    def __post_init__(self) -> None:
        where = f"filter on {self.field!r}"
        if not isinstance(self.field, str) or not self.field:
            raise DataError(f"{where}: the name of a field is a text that is not empty")
        if self.op not in OPS:
            raise DataError(f"{where}: unknown op {self.op!r}; there are {', '.join(OPS)}")
        several = isinstance(self.value, list | tuple | set | frozenset)
        if several != (self.op in ("in", "not_in")):
            raise DataError(f"{where}: {self.op} needs {'one value' if several else 'a list of values'}, not {self.value!r}")
        if several:
            object.__setattr__(self, "value", tuple(self.value))  # type: ignore[arg-type]  # hashable, as the rest
        if self.op == "exists" and not isinstance(self.value, bool):
            raise DataError(f"{where}: exists needs true or false, not {self.value!r}")
        for value in self.value if isinstance(self.value, tuple) else (self.value,):
            _check_value(value, where)

    def matches(self, fields: Mapping[str, Any]) -> bool:
        """Whether a row with these fields passes."""
        have = fields.get(self.field)
        if self.op == "exists":
            return (have is not None) == self.value
        if self.op in _NEGATED:
            return have is None or not _holds(_NEGATED[self.op], have, self.value)
        return have is not None and _holds(self.op, have, self.value)

    def mask(self, columns: Mapping[str, pa.ChunkedArray | pa.Array], length: int) -> npt.NDArray[np.bool_]:
        """`matches` for `length` rows at once. Shape (length,)."""
        column = columns.get(self.field)
        if self.op == "exists":
            there = np.zeros(length, np.bool_) if column is None else np.asarray(column.is_valid())
            return there if self.value else ~there
        negated = self.op in _NEGATED
        op = _NEGATED.get(self.op, self.op)
        op, value = ("in", (self.value,)) if op == "eq" else (op, self.value)
        found = np.zeros(length, np.bool_) if column is None else column_mask(column, op, value)
        return ~found if negated else found


@dataclass(frozen=True)
class Filter:
    """Conditions that must all hold; without any, every row passes. Can be compared and hashed."""

    conditions: tuple[Condition, ...] = ()

    @classmethod
    def parse(cls, value: Filter | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | str | None) -> Filter:
        """A filter from its JSON form, from what was written on a command line, or from None, which lets everything pass.

        JSON: a bare value means `eq`, a list `in`, `null` that the field is missing, and an object names ops:
        `{"gte": 2020, "lt": 2024}`.

        Command line: `field>=value` with `=`, `!=`, `>`, `>=`, `<`, `<=`, or `~` for `contains`. A value that is JSON counts as
        such (`2020`, `true`, `"2020"`, `["red", "blue"]`, `null`), anything else as text.

        Raises:
            DataError: neither of these, or a condition that makes no sense. Names the field.
        """
        if value is None:
            return cls()
        if isinstance(value, Filter):
            return value
        if isinstance(value, str):
            return cls((_written(value),))
        if isinstance(value, Mapping):
            return cls(tuple(condition for field, asked in value.items() for condition in _from_json(field, asked)))
        if isinstance(value, Sequence):
            return cls(tuple(condition for part in value for condition in cls.parse(part).conditions))
        raise DataError(f"a filter is an object such as {{'year': {{'gte': 2020}}}} or texts such as 'year>=2020', not {value!r}")

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields that are asked about."""
        return frozenset(condition.field for condition in self.conditions)

    def __bool__(self) -> bool:
        """False where every row passes."""
        return bool(self.conditions)

    def __and__(self, other: Filter) -> Filter:
        return Filter(self.conditions + other.conditions)

    def matches(self, row_fields: Mapping[str, Any]) -> bool:
        """Whether a row passes.

        Args:
            row_fields: `fields_of(row)`: a value, a list of them, or None by field name.
        """
        return all(condition.matches(row_fields) for condition in self.conditions)

    def mask(self, columns: Mapping[str, pa.ChunkedArray | pa.Array]) -> npt.NDArray[np.bool_]:
        """`matches` for many rows at once.

        Args:
            columns: N rows each, by field name, nulls where a row lacks the field: numbers, texts (dictionary encoded or not),
                booleans, lists of texts, or, where rows differ in kind, a struct of those (`umr.search.metadata.columns`). A
                field that no row has may be left out, but not all of them.

        Returns:
            Shape (N,).
        """
        length = len(next(iter(columns.values()))) if columns else 0
        passed = np.ones(length, np.bool_)
        for condition in self.conditions:
            passed &= condition.mask(columns, length)
        return passed


def fields_of(row: Row) -> dict[str, Any]:
    """The fields of a row as filters see them."""
    own = {name: getattr(row, name) for name in ROW_FIELDS}
    hidden = {f"metadata.{name}": row.metadata[name] for name in ROW_FIELDS if name in row.metadata}
    return {**row.metadata, **hidden, **own}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else type(value).__name__


def _check_value(value: Any, where: str) -> None:
    if _kind(value) not in ("true/false", "number", "text"):
        raise DataError(f"{where}: a value is a text, a number, or true/false, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: {value} is not a number that can be compared")
    if isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
        raise DataError(f"{where}: the text {value!r} is not valid Unicode")


def _holds(op: str, have: Any, value: Any) -> bool:
    """Whether a field's value passes, one value after the other: what `column_mask` must agree with."""
    if isinstance(have, list | tuple):
        return any(_holds("eq" if op == "contains" else op, one, value) for one in have)
    if op == "in":
        return any(_holds("eq", have, one) for one in value)
    if _kind(have) != _kind(value):
        return False
    if op == "eq":
        return bool(have == value)
    if op == "contains":
        return isinstance(have, str) and value in have
    return not isinstance(have, bool) and _ORDER[op](have, value)


def _from_json(field: str, asked: Any) -> list[Condition]:
    if isinstance(asked, Mapping):
        if not asked:
            raise DataError(f"filter on {field!r}: an empty object asks nothing; give a value or an op such as {{'gte': 2020}}")
        return [Condition(field, op, value) for op, value in asked.items()]
    if asked is None:
        return [Condition(field, "exists", False)]
    return [Condition(field, "in", tuple(asked))] if isinstance(asked, list | tuple) else [Condition(field, "eq", asked)]


def _written(text: str) -> Condition:
    found = _WRITTEN.fullmatch(text)
    if not found:
        raise DataError(f"filter {text!r} is not of the form field=value; the signs are {' '.join(_SIGNS)}")
    field, sign, written = found.groups()
    try:
        value = json.loads(written)
    except ValueError:
        value = written
    op: Any = _SIGNS[sign]
    if value is None and op in ("eq", "ne"):
        return Condition(field, "exists", op == "ne")
    if isinstance(value, list) and op in ("eq", "ne"):
        return Condition(field, "in" if op == "eq" else "not_in", tuple(value))
    return Condition(field, op, value)
