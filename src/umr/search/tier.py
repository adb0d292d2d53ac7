"""The quick search of a collection: one partition a modality over files derived from the table, and what has changed since.

    tier = Tier.open(table.scan, folder / "index", table.version(), dimension)
    tier.nearest(queries_QD, 10, where=Filter.parse({"year": {"gte": 2020}}))

A partition of some thousand rows is searched exactly; a larger one by sign bits with the best rescored (`umr.search.flat`), and one of
hundreds of thousands through cells (`umr.search.approximate`, with faiss), as hard as a sample showed to be needed (`umr.search.plans`).
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umr.errors import StoreError
from umr.search import changes as changed
from umr.search.changes import Changes
from umr.search.columns import KEPT, Columns
from umr.search.contest import best
from umr.search.derived import SCANNED, Scan, base_of, bases, build, by_modality, half_vectors, load
from umr.search.filters import Filter
from umr.search.flat import Signs, faiss_or_none, mean_of, pack_all
from umr.search.lately import Lately
from umr.search.partition import Partition
from umr.search.plans import STRANGER, Limits, Plan, Plans, depth_of
from umr.search.rows import Row
from umr.search.scoring import Found, least_of
from umr.search.table import Near
from umr.search.together import FEW, done

_SMALL = 4096  # changes that never need a new index
_UNTRIED = Plans({STRANGER: (Plan(spread=8), Plan(spread=8))})
"""How a modality is searched that appeared after the index was built, until the next one is."""


@dataclass(frozen=True)
class _State:
    """All that a search looks at; replaced as a whole, so that searches in other threads go on undisturbed."""

    version: str
    base: tuple[Partition, ...]
    delta: tuple[Partition, ...] = ()
    rows: pa.Table | None = None  # of the delta


class Tier:
    """The rows of one table version, ready to be searched. May be used by several threads."""

    def __init__(self, state: _State, dimension: int, limits: Limits) -> None:
        self._state = state
        self._limits = limits
        self._dimension = dimension
        self._changing = threading.Lock()
        self._lately = Lately()

    @classmethod
    def open(cls, scan: Scan, folder: Path, version: str, dimension: int, limits: Limits | None = None) -> Tier:
        """Load the index of a table version; made, or brought up to date, where it is missing, damaged or of an earlier version.

        Args:
            scan: gives all rows of the version, some columns.
            folder: where derived files are; made when missing. Nothing else is kept there.
            version: of the table.
            dimension: length of a vector.
            limits: see there.

        Raises:
            StoreError: the folder cannot be written, or rows have vectors of another dimension.
        """
        limits = limits or Limits()
        if (partitions := load(base_of(folder, version), dimension, limits)) is None:
            with _held(folder):
                return cls._made(scan, folder, version, dimension, limits)
        return cls(_State(version, tuple(partitions)), dimension, limits)

    @classmethod
    def _made(cls, scan: Scan, folder: Path, version: str, dimension: int, limits: Limits) -> Tier:
        """The index of a version: as another process has made it by now, from an earlier one, or built."""
        current = base_of(folder, version)
        for base in dict.fromkeys([current, *bases(folder)[:1]]):
            if (partitions := load(base, dimension, limits)) is None:
                continue
            tier = cls(_State(version, tuple(partitions)), dimension, limits)
            if base == current:
                return tier
            if (found := _changes(folder, base, partitions, scan, version, _most(partitions, limits))) is not None:
                tier._apply(version, found)
                return tier
        build(scan, folder, version, dimension, limits)
        if (partitions := load(current, dimension, limits)) is None:
            raise StoreError(f"{current}: the index that was just written cannot be read back; look at the disk")
        return cls(_State(version, tuple(partitions)), dimension, limits)

    @property
    def version(self) -> str:
        """The table version that is searched."""
        return self._state.version

    @property
    def worn(self) -> bool:
        """Whether so much has changed that the index should be opened anew, which builds it. Results are right either way."""
        state = self._state
        return max(sum(one.deaths for one in state.base), sum(map(len, state.delta))) > _most(state.base, self._limits)

    def refresh(self, version: str, rows: Iterable[pa.RecordBatch] = (), gone: Sequence[str] = ()) -> None:
        """Follow a change of the table that the caller knows in full.

        Args:
            version: of the table after it.
            rows: new rows, and changed ones as they are now, with the columns `SCANNED`.
            gone: ids of rows that were removed.
        """
        tables = [pa.table(batch) if not isinstance(batch, pa.Table) else batch for batch in rows]
        self._apply(version, Changes(pa.concat_tables(tables).select(SCANNED) if tables else None, gone))

    def _apply(self, version: str, changes: Changes) -> None:
        with self._changing:
            old = self._state
            if not len(changes):
                self._state = _State(version, old.base, old.delta, old.rows)
                return
            ids = pa.array(changes.gone, pa.string())
            if changes.rows is not None:
                ids = pa.concat_arrays([ids, *(chunk.cast(pa.string()) for chunk in changes.rows["id"].chunks)])
            kept = [] if old.rows is None else [old.rows.filter(pc.invert(pc.is_in(old.rows["id"], value_set=ids)))]
            if changes.rows is not None:
                kept.append(changes.rows if not kept else changes.rows.cast(kept[0].schema))
            rows = pa.concat_tables(kept).combine_chunks() if kept else None
            base = tuple(one.without(ids) for one in old.base)
            self._state = _State(version, base, self._delta(rows, base), rows)

    def _delta(self, rows: pa.Table | None, base: Sequence[Partition]) -> tuple[Partition, ...]:
        """Partitions in memory; those of more than a few thousand rows with sign bits, searched as hard as the ones on disk."""
        made = []
        plans = {one.modality: one.plans for one in base if one.plans.of}
        for modality, some in by_modality(rows) if rows is not None else ():
            vectors_ND = half_vectors(some["vector"], self._dimension)
            signs = None
            if len(some) > self._limits.exact:
                mean_D = mean_of(vectors_ND)
                signs = Signs(pack_all(vectors_ND, mean_D), mean_D, faiss_or_none())
            columns = Columns(modality, some.select(KEPT))
            made.append(Partition(columns, vectors_ND, signs, None, plans.get(modality, _UNTRIED), self._limits))
        return tuple(made)

    def nearest(
        self,
        queries_QD: npt.NDArray[np.float32],
        k: int,
        where: Filter | None = None,
        modalities: Sequence[str] | None = None,
        asking: str | None = None,
    ) -> list[list[Near]]:
        """The rows of highest cosine to each query among those that pass, best first, ties by id.

        Args:
            queries_QD: shape (Q, D); of any length but zero.
            k: results wanted.
            where: which rows to choose from.
            modalities: which modalities; by default all.
            asking: the queries' modality, where it is known: they are then searched no harder than such queries need.

        Returns:
            For each query, at most `k` ids with their cosines.

        Raises:
            StoreError: queries of another dimension, or not finite.
        """
        queries_QD = self._unit(queries_QD)
        state = self._state
        if k < 1:
            return [[] for _ in queries_QD]
        asked = [one for one in (*state.base, *state.delta) if len(one) and (modalities is None or one.modality in modalities)]
        works = [one.work(queries_QD, k, where, asking) for one in asked] if len(queries_QD) else []
        listed = done(works, apart=len(queries_QD) < FEW)
        near = []
        for number, query_D in enumerate(queries_QD):
            found = best(query_D, [each[number] for each in listed], k, depth_of(k))
            near.append(self._merged([(one.columns, some) for one, some in zip(asked, found, strict=True)], k))
        return near

    def rows(self, ids: Sequence[str], version: str, vectors: bool = False) -> dict[str, Row]:
        """Rows of a version, as far as they have been found lately and lie in the index; none of another version than this one.

        Args:
            ids: unknown ones are left out, as are rows that came after the index was built.
            version: of the table.
            vectors: also their vectors.
        """
        state = self._state
        if state.version != version:
            return {}
        partitions = {id(one.columns): one for one in state.base}
        found = {}
        for name, (columns, place) in self._lately.of(ids).items():
            one = partitions.get(id(columns))
            if one is not None and (one.dead is None or not one.dead[place]):
                found[name] = columns.row(place, one.vectors_ND[place].copy() if vectors else None)
        return found

    def _merged(self, found: Sequence[tuple[Columns, Found]], k: int) -> list[Near]:
        least = least_of(np.concatenate([np.empty(0, np.float32), *(one.scores for _, one in found)]), k)
        near = []
        for columns, one in found:
            best = np.flatnonzero(one.scores >= least)
            names = columns.names(one.rows[best])
            if columns.whole:
                self._lately.note(names, columns, one.rows[best].tolist())
            near += [Near(id, score) for id, score in zip(names, one.scores[best].tolist(), strict=True)]
        return sorted(near, key=lambda one: (-one.score, one.id))[:k]

    def _unit(self, queries_QD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        queries_QD = np.asarray(queries_QD, np.float32)
        if queries_QD.ndim != 2 or queries_QD.shape[1] != self._dimension:
            raise StoreError(
                f"queries of shape {queries_QD.shape} cannot be compared with vectors of {self._dimension} numbers: "
                "use the collection's model"
            )
        length_Q1 = np.linalg.norm(queries_QD.astype(np.float64), axis=1, keepdims=True)
        if not np.isfinite(length_Q1).all():
            raise StoreError("a query's vector is not finite; look at the query and at the model")
        return (queries_QD / np.where(length_Q1 == 0, 1, length_Q1)).astype(np.float32)

    def stats(self) -> dict[str, Any]:
        """How much there is and how it is searched, as JSON."""
        state = self._state
        parts = {one.modality: one.stats() for one in state.base}
        fast = faiss_or_none() is not None
        large = any(len(one) > self._limits.flat for one in state.base)
        return {
            "version": state.version,
            "rows": sum(map(len, state.base)) + sum(map(len, state.delta)),
            "changed_since_built": sum(map(len, state.delta)) + sum(one.deaths for one in state.base),
            "partitions": parts,
            "faiss": fast,
            "note": "faiss is not installed, so large partitions are scanned: pip install 'umr[fast]'" if large and not fast else "",
        }


def _changes(folder: Path, base: Path, partitions: list[Partition], scan: Scan, version: str, most: int) -> Changes | None:
    """What to add to an earlier index, or None where it is too much."""
    if (known := changed.load(folder, base, version)) is not None:
        return known
    found = changed.changes_since(partitions, scan, most)
    if found is not None:
        changed.save(folder, base, version, found)
    return found


def _most(base: Sequence[Partition], limits: Limits) -> int:
    """Rows of the index that may change, and rows that may be added, before it is built again."""
    return max(_SMALL, int(sum(len(one.columns) for one in base) * limits.delta))


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Let one process at a time build; the others wait and find it built."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise StoreError(f"{folder}: cannot hold an index ({error.strerror}); choose a folder that can be written") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
