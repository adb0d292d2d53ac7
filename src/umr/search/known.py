"""Vectors that a collection has already: what has been embedded once, under whatever name, is not embedded again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umr.search.rows import Row
from umr.search.table import Table

Vector = npt.NDArray[np.float16]


class KnownVectors:
    """Vectors by `Item.digest`, looked up in the table.

    Args:
        table: the collection's rows; read once for the digests it has, at the first question.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._before: pa.Table | None = None
        self._since: dict[bytes, str] = {}

    def find(self, digests: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those digests that there are."""
        ids = self._ids(digests)
        rows = self._table.rows(list(ids), vectors=True) if ids else []
        # a row that was replaced since may hold something else by now
        return {row.digest: row.vector_D for row in rows if row.vector_D is not None and ids.get(row.id) == row.digest}

    def add(self, rows: Iterable[Row]) -> None:
        """Take note of rows that have been put into the table."""
        self._since.update((bytes.fromhex(row.digest), row.id) for row in rows)

    def _ids(self, digests: Sequence[str]) -> dict[str, str]:
        """Ids of rows with these digests, each with its digest."""
        found = {}
        if self._before is None:
            batches = list(self._table.scan(["id", "digest"]))
            self._before = pa.Table.from_batches(batches).select(["id", "digest"]) if batches else pa.table({"id": [], "digest": []})
        old = []
        for digest in digests:
            if id := self._since.get(bytes.fromhex(digest)):
                found[id] = digest
            else:
                old.append(digest)
        if old and len(self._before):
            places = pc.index_in(pa.array(old, self._before["digest"].type), value_set=self._before["digest"].combine_chunks())
            for digest, place in zip(old, places.to_pylist(), strict=True):
                if place is not None:
                    found[self._before["id"][place].as_py()] = digest
        return found
