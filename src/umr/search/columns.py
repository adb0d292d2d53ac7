"""The fields of one modality's rows, what hits show of them, and which pass a filter; the filters asked last are remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.search.filters import Condition, Filter
from umr.search.metadata import FILTER_COLUMNS, decode, filter_columns
from umr.search.rows import Row

Places: TypeAlias = npt.NDArray[np.int32]
"""Row numbers of a partition, ascending."""

KEPT = tuple(name for name in FILTER_COLUMNS if name != "modality")
"""Columns that a partition keeps: its modality is the same for all rows."""

SHOWN = ("digest", "text", "media", "thumbnail")
"""Columns that make a whole `Row`, with those above. Partitions in a file have them; they are read from there, row by row."""

CHANGED = "changed"
"""When a row was written, in nanoseconds: a row that is replaced gets another. Partitions in a file have it."""

REMEMBERED = 1 << 24
"""Row numbers that remembered filters may hold together: 64 MiB."""


class Columns:
    """Fields of N rows.

    Args:
        modality: of all of them.
        table: N rows of the columns `KEPT`, and of others.
    """

    def __init__(self, modality: str, table: pa.Table) -> None:
        self.modality = modality
        self.table = table
        self._lock = threading.Lock()
        self._typed: dict[str, pa.ChunkedArray | pa.Array] = {}
        self._passing: OrderedDict[Filter, Places] = OrderedDict()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def ids(self) -> pa.ChunkedArray:
        """Ids in row order."""
        return self.table["id"]

    def names(self, places: npt.NDArray[np.integer]) -> list[str]:
        """Ids of some rows."""
        ids = self.ids
        return [ids[place].as_py() for place in places.tolist()]

    @property
    def whole(self) -> bool:
        """Whether `row` can be asked: not of rows that came after an index was built."""
        return SHOWN[0] in self.table.column_names

    def row(self, place: int, vector_D: npt.NDArray[np.float16] | None) -> Row:
        """One row. It takes a few hundredths of a millisecond, where a table of LanceDB takes three or more for any number."""
        fields = {name: self.table[name][place].as_py() for name in (*KEPT, *SHOWN)}
        return Row(**fields | {"metadata": decode(fields["metadata"])}, modality=self.modality, vector_D=vector_D)

    def passing(self, where: Filter | None) -> Places | None:
        """Rows that pass; None for all of them, found without looking at any."""
        own, others = _split(where, self.modality)
        if not own:
            return np.empty(0, np.int32)
        if not others:
            return None
        with self._lock:
            if (known := self._passing.get(others)) is not None:
                self._passing.move_to_end(others)
                return known
        places = np.flatnonzero(others.mask(self._columns(others))).astype(np.int32)
        self._remember(others, places)
        return places

    def _columns(self, where: Filter) -> dict[str, pa.ChunkedArray | pa.Array]:
        """Typed columns of what is asked about. Reading metadata takes about a second for a million rows, the first time."""
        with self._lock:
            new = where.fields - set(self._typed)
        found = filter_columns(self.table, new | {"id"})
        with self._lock:
            self._typed.update(found)
            return {name: self._typed[name] for name in (where.fields | {"id"}) if name in self._typed}

    def _remember(self, where: Filter, places: Places) -> None:
        with self._lock:
            self._passing[where] = places
            while len(self._passing) > 1 and sum(map(len, self._passing.values())) > REMEMBERED:
                self._passing.popitem(last=False)


def _split(where: Filter | None, modality: str) -> tuple[bool, Filter]:
    """Whether what is asked of the modality holds, and the rest of the filter."""
    if not where:
        return True, Filter()
    own = [one for one in where.conditions if _about_modality(one)]
    others = tuple(one for one in where.conditions if not _about_modality(one))
    return all(one.matches({"modality": modality}) for one in own), Filter(others)


def _about_modality(condition: Condition) -> bool:
    return condition.field == "modality"
