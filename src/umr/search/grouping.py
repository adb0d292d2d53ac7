"""At most a few results of each group, such as the pages of one PDF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from umr.search.rows import Row

Found = TypeVar("Found")


def at_most(found: Iterable[Found], per_group: int, group_of: Callable[[Found], Hashable | None]) -> Iterator[Found]:
    """The first `per_group` of each group in the order given; those whose group is None all stay.

    What is kept of the beginning of an order is the beginning of what is kept of all of it, so pages stay slices of one order.
    """
    seen: Counter[Hashable] = Counter()
    for one in found:
        group = group_of(one)
        if group is not None:
            seen[group] += 1
            if seen[group] > per_group:
                continue
        yield one


def group_of(row: Row, field: str) -> Hashable | None:
    """The group of a row: its source, or the value of a metadata field; None for a row without it."""
    value = row.source if field == "source" else row.metadata.get(field)
    return tuple(value) if isinstance(value, list) else value
