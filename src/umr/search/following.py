"""What has changed in a table between two of its versions, so that derived data need not be made anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Snapshot:
    """Which rows a version has, and when each of them was written.

    Attributes:
        version: of the table.
        ids: N ids.
        changed_N: nanoseconds, in the order of `ids`.
    """

    version: str
    ids: pa.ChunkedArray
    changed_N: npt.NDArray[np.int64]

    @classmethod
    def of(cls, version: str, scan: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]) -> Snapshot:
        """Read one; `scan` reads columns of the rows of that version."""
        empty = pa.table({"id": pa.array([], pa.string()), "changed": pa.array([], pa.int64())})
        table = pa.concat_tables([empty, *(pa.Table.from_batches([batch]) for batch in scan(("id", "changed")))])
        return cls(version, table["id"], table["changed"].to_numpy())

    def changed_since(self, before: Snapshot) -> tuple[list[str], list[str]]:
        """Ids of rows that have been added or replaced since, and of those that are gone."""
        places = pc.index_in(self.ids, value_set=before.ids)
        at_N = places.fill_null(-1).to_numpy()
        known_N = at_N >= 0
        same_N = known_N.copy()
        same_N[known_N] = before.changed_N[at_N[known_N]] == self.changed_N[known_N]
        gone = np.ones(len(before.ids), np.bool_)
        gone[at_N[known_N]] = False
        return self.ids.filter(pa.array(~same_N)).to_pylist(), before.ids.filter(pa.array(gone)).to_pylist()
