"""The user's own fields: one JSON text a row in the table, columns of the right type where filters look at them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from umr.errors import DataError
from umr.search.filters import ROW_FIELDS

FILTER_COLUMNS = (*ROW_FIELDS, "metadata")
"""What `Table.scan` must be asked for so that `filter_columns` can be made of it."""

_KINDS: dict[str, pa.DataType] = {
    "whole": pa.int64(),  # apart from "real", which would round numbers beyond 2^53
    "real": pa.float64(),
    "flag": pa.bool_(),
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
}


def encode(metadata: Mapping[str, Any], where: str = "metadata") -> str:
    """The JSON text that is stored. Keys are sorted; fields that are None are left out.

    Args:
        metadata: texts, numbers, true/false, and lists of texts by name.
        where: what to name in errors, such as the row's id.

    Raises:
        DataError: another type, a number that is not finite or beyond 64 bits, or text that is not valid Unicode.
    """
    kept = {name: _checked(name, value, where) for name, value in metadata.items() if value is not None}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True, separators=(",", ":")) if kept else ""


def decode(encoded: str) -> dict[str, Any]:
    """The fields that `encode` was given."""
    return json.loads(encoded) if encoded else {}


def filter_columns(scanned: pa.Table, fields: Iterable[str]) -> dict[str, pa.ChunkedArray | pa.Array]:
    """What `Filter.mask` reads.

    Args:
        scanned: N rows with the columns `FILTER_COLUMNS`.
        fields: `Filter.fields` of the filters that will be asked; others need no column.

    Returns:
        Columns of N values by field. `id` is always among them.
    """
    wanted = set(fields)
    own = {name: scanned[name] for name in ROW_FIELDS if name in wanted or name == "id"}
    others = wanted - set(own)
    return {**columns(scanned["metadata"], others), **own} if others else dict(own)


def columns(encoded: pa.ChunkedArray | pa.Array, fields: Iterable[str]) -> dict[str, pa.Array]:
    """Metadata fields of N rows as Arrow columns of N values; a field that no row has is left out.

    A field that holds one kind of value gives int64, double, bool, string or list<string>; one that mixes them, a struct with a
    child for each kind.

    Args:
        encoded: N texts from `encode`. Equal ones, as rows of one file have, are read once.
        fields: names as filters write them: `metadata.page` is the metadata's `page`.
    """
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    unique = encoded.dictionary_encode()
    records = [decode(text) for text in unique.dictionary.to_pylist()]
    found = {}
    for field in fields:
        key = field.removeprefix("metadata.") if field.removeprefix("metadata.") in ROW_FIELDS else field
        values = [record.get(key) for record in records]
        if any(value is not None for value in values):
            found[field] = _column(values).take(unique.indices)
    return found


def _column(values: list[Any]) -> pa.Array:
    kinds = [_kind(value) for value in values]
    there = {
        kind: pa.array([value if kind == own else None for value, own in zip(values, kinds, strict=True)], type)
        for kind, type in _KINDS.items()
        if kind in kinds
    }
    if len(there) == 1:
        return next(iter(there.values()))
    return pa.StructArray.from_arrays(list(there.values()), list(there), mask=pa.array([value is None for value in values]))


def _kind(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "texts"
    return "whole" if isinstance(value, int) else "real"


def _checked(name: str, value: Any, where: str) -> Any:
    what = f"{where}: metadata field {name!r}"
    if not isinstance(name, str) or not name or not _unicode(name):
        raise DataError(f"{what}: a name is a text that is not empty")
    if isinstance(value, list | tuple) and all(isinstance(one, str) and _unicode(one) for one in value):
        return list(value)
    if (isinstance(value, str) and _unicode(value)) or isinstance(value, bool):
        return value
    if (isinstance(value, int) and -(2**63) <= value < 2**63) or (isinstance(value, float) and math.isfinite(value)):
        return value
    shown = repr(value)
    raise DataError(
        f"{what} is {shown if len(shown) <= 80 else shown[:77] + '...'}; "
        "it must be a text, a finite number of at most 64 bits, true/false, or a list of texts"
    )


def _unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
