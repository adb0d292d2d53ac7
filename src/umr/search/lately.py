"""Where the rows are that searches have found lately: those are the ones that are read next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from umr.search.columns import Columns

REMEMBERED = 1 << 14
"""Rows that are remembered; some two megabytes."""


class Lately:
    """Ids with their places. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: OrderedDict[str, tuple[Columns, int]] = OrderedDict()

    def note(self, ids: Sequence[str], columns: Columns, places: Sequence[int]) -> None:
        """Rows were found there."""
        with self._lock:
            for id, place in zip(ids, places, strict=True):
                self._at[id] = columns, place
                self._at.move_to_end(id)
            while len(self._at) > REMEMBERED:
                self._at.popitem(last=False)

    def of(self, ids: Sequence[str]) -> dict[str, tuple[Columns, int]]:
        """Where these rows were found, as far as they were."""
        with self._lock:
            return {id: self._at[id] for id in ids if id in self._at}
