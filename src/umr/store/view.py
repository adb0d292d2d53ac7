"""Rows of several stores in an order of one's own: how a pool uses vectors that other pools already have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umr.errors import StoreError
from umr.protocols import Vectors
from umr.store.vectors import VectorStore, arrow_ids


def locate(stores: Sequence[VectorStore], ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where each id is in the stores laid end to end: its first row, or -1. Shape (len(ids),)."""
    return _rows(stores, arrow_ids(ids))


def _rows(stores: Sequence[VectorStore], ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    known = pa.chunked_array([chunk for store in stores for chunk in store.ids.chunks], pa.string())
    rows = pc.index_in(ids, value_set=known.combine_chunks())
    return np.asarray(pc.fill_null(rows, -1), np.int64)


class VectorView:
    """The vectors of `ids`, in that order, read from `stores` without copying them.

    Args:
        stores: stores of one model.
        ids: the ids wanted, each in at least one store; a list, or an Arrow column of another store's ids.

    Attributes:
        ids: in row order.

    Raises:
        StoreError: an id is in no store, or the stores come from different models.
    """

    def __init__(self, stores: Sequence[VectorStore], ids: Sequence[str] | pa.ChunkedArray) -> None:
        if len({store.fingerprint for store in stores}) > 1:
            raise StoreError("vectors of different models cannot be searched together: " + ", ".join(str(s.path) for s in stores))
        self.stores = list(stores)
        self.ids = arrow_ids(ids)
        self._rows = _rows(stores, self.ids)
        missing = np.flatnonzero(self._rows < 0)
        if len(missing):
            raise StoreError(f"no vector of {self.ids[int(missing[0])].as_py()!r} in " + ", ".join(str(store.path) for store in stores))
        self._offsets = np.cumsum([0] + [len(store) for store in stores])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Where each row is in the stores laid end to end."""
        return self._rows

    @property
    def modalities(self) -> pa.ChunkedArray:
        """Modalities in row order."""
        known = pa.chunked_array([chunk for store in self.stores for chunk in store.modalities.chunks], pa.string())
        return known.take(pa.array(self._rows))

    def read(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop` (at most the last row): float32, shape (n, dimension)."""
        return self._gather(self._rows[max(0, start) : stop])

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The given rows in the given order: float32, shape (len(rows), dimension)."""
        return self._gather(self._rows[rows])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.stores[0].dimension

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made the vectors."""
        return self.stores[0].fingerprint

    def release(self) -> None:
        """Let go of what the stores hold."""
        for store in self.stores:
            store.release()

    def _gather(self, rows: npt.NDArray[np.int64]) -> Vectors:
        found = np.empty((len(rows), self.stores[0].dimension), np.float32)
        numbers = np.searchsorted(self._offsets, rows, side="right") - 1
        for number in np.unique(numbers):
            here = numbers == number
            found[here] = self.stores[number].take(rows[here] - self._offsets[number])
        return found
