"""What a collection asks of the engine that keeps its rows. LanceDB is the default (`umr.search.lance`), Milvus another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.search.filters import Filter
from umr.search.rows import Row, SourceFile


@dataclass(frozen=True)
class Near:
    """One found row: its id and its score. Cosine for `nearest`, BM25 for `words`; higher is better."""

    id: str
    score: float


class Table(Protocol):
    """Rows of one collection. Every change is whole or absent after a crash, and durable once the call returns."""

    def version(self) -> str:
        """Changes with every change to the rows; what derived data is checked against."""
        ...

    def count(self, where: Filter | None = None) -> int:
        """Number of rows that pass."""
        ...

    def put(self, rows: Sequence[Row], files: Sequence[SourceFile]) -> None:
        """Record `files` with all their rows: rows of these files that are not in `rows` any more go.

        Rows are committed before the files' records, so that a crash between the two leaves files that are read again.
        """
        ...

    def add(self, rows: Sequence[Row]) -> None:
        """Insert rows, or replace those of equal id; for rows that come from no file."""
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows by id; how many there were."""
        ...

    def forget(self, sources: Sequence[str]) -> int:
        """Remove files that are gone, with their rows; how many rows there were."""
        ...

    def files(self) -> Iterator[SourceFile]:
        """Everything that was looked at, ordered by path."""
        ...

    def rows(self, ids: Sequence[str], vectors: bool = False) -> list[Row]:
        """Rows by id, in the order asked; unknown ids are left out."""
        ...

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, some columns, in no stated order."""
        ...

    def nearest(
        self, queries_QD: npt.NDArray[np.float32], k: int, where: Filter | None = None, modalities: Sequence[str] | None = None
    ) -> list[list[Near]]:
        """The `k` rows of highest cosine to each query among those that pass, best first, ties by id."""
        ...

    def words(self, text: str, k: int, where: Filter | None = None, modalities: Sequence[str] | None = None) -> list[Near]:
        """The `k` rows whose text answers best by BM25; words are taken literally, whatever operators they contain."""
        ...
