"""A `Table` of a few rows in memory, by brute force: for tests of what stands above tables."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from umr.search.filters import Filter, fields_of
from umr.search.rows import Row, SourceFile
from umr.search.table import Near


class MemoryTable:
    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._rows = {row.id: row for row in rows}
        self._files: dict[str, SourceFile] = {}
        self._changes = 0
        self._lock = threading.Lock()
        self.asked: list[tuple[str, int]] = []

    def version(self) -> str:
        return str(self._changes)

    def count(self, where: Filter | None = None) -> int:
        return len(self._passing(where, None))

    def put(self, rows: Sequence[Row], files: Sequence[SourceFile]) -> None:
        self.forget([file.path for file in files])
        self.add(rows)
        self._files |= {file.path: file for file in files}

    def add(self, rows: Sequence[Row]) -> None:
        with self._lock:
            self._rows = {**self._rows, **{row.id: row for row in rows}}
            self._changes += 1

    def delete(self, ids: Sequence[str]) -> int:
        with self._lock:
            there = set(ids) & set(self._rows)
            self._rows = {id: row for id, row in self._rows.items() if id not in there}
            self._changes += 1
        return len(there)

    def forget(self, sources: Sequence[str]) -> int:
        self._files = {path: file for path, file in self._files.items() if path not in sources}
        return self.delete([row.id for row in self._rows.values() if row.source in sources])

    def files(self) -> Iterator[SourceFile]:
        return iter(sorted(self._files.values(), key=lambda file: file.path))

    def rows(self, ids: Sequence[str], vectors: bool = False) -> list[Row]:
        self.asked.append(("rows", len(ids)))
        return [self._rows[id] for id in ids if id in self._rows]

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({name: [getattr(row, name) for row in self._rows.values()] for name in columns})

    def nearest(
        self, queries_QD: np.ndarray, k: int, where: Filter | None = None, modalities: Sequence[str] | None = None
    ) -> list[list[Near]]:
        self.asked.append(("nearest", k))
        rows = self._passing(where, modalities)
        return [
            sorted(
                (Near(row.id, float(row.vector_D.astype(np.float32) @ query_D)) for row in rows), key=lambda near: (-near.score, near.id)
            )[:k]
            for query_D in queries_QD
        ]

    def words(self, text: str, k: int, where: Filter | None = None, modalities: Sequence[str] | None = None) -> list[Near]:
        """Rare words count more; enough of BM25 for an order."""
        self.asked.append(("words", k))
        rows = self._passing(where, modalities)
        bags = {row.id: row.text.lower().replace(".", "").split() for row in rows}
        found = []
        for id, bag in bags.items():
            score = sum(
                math.log(1 + len(bags) / sum(word in other for other in bags.values())) for word in text.lower().split() if word in bag
            )
            if score > 0:
                found.append(Near(id, score / (1 + len(bag) / 10)))
        return sorted(found, key=lambda near: (-near.score, near.id))[:k]

    def _passing(self, where: Filter | None, modalities: Sequence[str] | None) -> list[Row]:
        return [
            row
            for row in self._rows.values()
            if (where is None or where.matches(fields_of(row))) and (modalities is None or row.modality in modalities)
        ]
