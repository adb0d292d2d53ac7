"""One condition over a column of many rows. Agrees with `Condition.matches`, row by row; a null never passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]

_NUMPY: dict[str, Callable[..., Any]] = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}
_ARROW: dict[str, Callable[..., Any]] = {"gt": pc.greater, "gte": pc.greater_equal, "lt": pc.less, "lte": pc.less_equal}
_INT64 = np.iinfo(np.int64)


def column_mask(column: pa.ChunkedArray | pa.Array, op: str, value: Any) -> Mask:
    """Which rows pass.

    Args:
        column: as of `Filter.mask`.
        op: `in` (of a tuple), `gt`, `gte`, `lt`, `lte` or `contains` (of one value).
        value: what to compare with.

    Returns:
        Shape (rows,).
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return np.concatenate([np.zeros(0, np.bool_), *(_mask(chunk, op, value) for chunk in chunks)])


def _mask(array: pa.Array, op: str, value: Any) -> Mask:
    kind = array.type
    if pa.types.is_struct(kind):
        children = [_mask(child, op, value) for child in array.flatten()]  # flatten: a child is null where the struct is
        return np.logical_or.reduce([np.zeros(len(array), np.bool_), *children])
    if pa.types.is_dictionary(kind):
        here = _mask(array.dictionary, op, value)
        indices = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return here[indices] & _valid(array) if len(here) else np.zeros(len(array), np.bool_)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        found = np.zeros(len(array), np.bool_)
        # The members' own rule: a list contains what equals one of its members.
        members = _mask(array.flatten(), *(("in", (value,)) if op == "contains" else (op, value)))
        found[pc.list_parent_indices(array).to_numpy()[members]] = True
        return found
    if pa.types.is_boolean(kind):
        wanted = [one for one in value if isinstance(one, bool)] if op == "in" else []
        return _bools(pc.is_in(array, value_set=pa.array(wanted, pa.bool_())))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbers(array, op, value)
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.bool_)
    return _texts(array, op, value)


def _valid(array: pa.Array) -> Mask:
    return np.asarray(array.is_valid())


def _bools(array: pa.Array) -> Mask:
    return array.fill_null(False).to_numpy(zero_copy_only=False)


def _texts(array: pa.Array, op: str, value: Any) -> Mask:
    if op == "in":
        return _bools(pc.is_in(array, value_set=pa.array([one for one in value if isinstance(one, str)], array.type)))
    if not isinstance(value, str):
        return np.zeros(len(array), np.bool_)
    if op == "contains":
        return _bools(pc.match_substring(array, value))
    return _bools(_ARROW[op](array, pa.scalar(value, array.type)))


def _numbers(array: pa.Array, op: str, value: Any) -> Mask:
    """Compared as exactly as Python does, which no cast between int64 and double would."""
    whole = pa.types.is_integer(array.type)
    have = array.cast(pa.int64() if whole else pa.float64()).fill_null(0).to_numpy(zero_copy_only=False)
    if op == "in":
        numbers = [one for one in value if isinstance(one, int | float) and not isinstance(one, bool)]
        if whole:
            wanted = np.array([int(one) for one in numbers if one == math.floor(one) and _INT64.min <= one <= _INT64.max], np.int64)
        else:
            wanted = np.array([_nearest(one) for one in numbers if _nearest(one) == one], np.float64)
        return np.isin(have, wanted) & _valid(array)
    if op == "contains" or isinstance(value, bool) or not isinstance(value, int | float):
        return np.zeros(len(array), np.bool_)
    return (_order_whole if whole else _order_real)(have, op, value) & _valid(array)


def _order_whole(have: npt.NDArray[np.int64], op: str, value: int | float) -> Mask:
    bound = math.floor(value)
    if bound != value:  # between two integers: above it is above the lower one
        op = "gt" if op in ("gt", "gte") else "lte"
    if not _INT64.min <= bound <= _INT64.max:
        return np.full(len(have), (bound < 0) == (op in ("gt", "gte")))
    return _NUMPY[op](have, np.int64(bound))


def _order_real(have: npt.NDArray[np.float64], op: str, value: int | float) -> Mask:
    bound = _nearest(value)
    if bound > value:  # no double lies between the two, so the bound itself is on the value's far side
        op = "gte" if op in ("gt", "gte") else "lt"
    elif bound < value:
        op = "gt" if op in ("gt", "gte") else "lte"
    return _NUMPY[op](have, bound)


def _nearest(value: int | float) -> float:
    """The double nearest to a number; infinite where it is beyond them all."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
