"""Vectors on disk: fp16 shards with their ids, and a manifest that says which model and data they came from.

A store is a folder:

    manifest.json       format, fingerprint, dimension, side, source, and for every shard its rows, file sizes and hashes
    00000.npy           float16, shape (rows, dimension), unit rows
    00000.parquet       columns `id` and `modality`, in row order
    00001.npy, ...

Row numbers count through the shards in order. A shard's files are renamed into place before the manifest names them, so
a process killed at any moment leaves a store that opens with every shard but the one being written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from umr import files
from umr.errors import StoreError
from umr.items import Side
from umr.protocols import Vectors
from umr.store.manifest import AGAIN, Manifest, Shard
from umr.store.shard_files import describe, shard_contents
from umr.store.shard_folder import NAME, check_contents, check_sizes, one_writer

_PIECE = 1 << 16


class VectorStore:
    """A folder of vectors, ids and modalities; rows are appended a shard at a time and never changed.

    Open one with `VectorStore(path)` to read, or `VectorStore.create_or_resume` to write. Opening checks that every file
    is there with the size it was written with; `verify` checks the contents.

    Args:
        path: the folder.

    Raises:
        StoreError: no store there, another format, or a file missing or of the wrong size. Names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._load()

    @classmethod
    def create_or_resume(cls, path: Path, *, fingerprint: str, dimension: int, side: Side = "candidate", source: str = "") -> VectorStore:
        """Open the store in `path`, or make an empty one.

        Args:
            path: the folder; made when missing.
            fingerprint: `Encoder.fingerprint` of the model that makes the vectors.
            dimension: length of a vector.
            side: which side the items are embedded as.
            source: a label of the data, such as a data fingerprint.

        Raises:
            StoreError: the folder holds vectors of another model, dimension, side or source.
        """
        path = Path(path)
        wanted = Manifest(fingerprint, dimension, side, source)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / NAME).exists():
                wanted.write(path)
        except OSError as error:
            raise StoreError(f"{path}: cannot hold a vector store ({error.strerror}); choose another folder") from error
        store = cls(path)
        store._manifest.check(wanted, path)
        return store

    def _load(self) -> None:
        self._manifest = Manifest.read(self.path)
        self._mapped: dict[int, npt.NDArray[np.float16]] = {}
        self._offsets = np.cumsum([0] + [shard.rows for shard in self._manifest.shards])
        self.__dict__.pop("_table", None)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made the vectors."""
        return self._manifest.fingerprint

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._manifest.dimension

    @property
    def side(self) -> str:
        """`"query"` or `"candidate"`."""
        return self._manifest.side

    @property
    def source(self) -> str:
        """Label of the data."""
        return self._manifest.source

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self._manifest.shards)

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @property
    def ids(self) -> pa.ChunkedArray:
        """Ids in row order."""
        return self._table["id"]

    @property
    def modalities(self) -> pa.ChunkedArray:
        """Modalities in row order."""
        return self._table["modality"]

    @cached_property
    def _table(self) -> pa.Table:
        empty = pa.table({"id": pa.array([], pa.string()), "modality": pa.array([], pa.string())})
        return pa.concat_tables([empty] + [self._read_ids(number) for number in range(len(self._manifest.shards))])

    def _read_ids(self, number: int) -> pa.Table:
        path = self.path / f"{number:05d}.parquet"
        try:
            table = pq.read_table(path, columns=["id", "modality"])
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: damaged ids ({error}); {AGAIN}") from error
        if len(table) != self._manifest.shards[number].rows:
            raise StoreError(f"{path}: {len(table)} ids instead of {self._manifest.shards[number].rows}; {AGAIN}")
        return table

    def read(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop` (at most the last row): float32, shape (n, dimension), unit length again after fp16."""
        start, stop = max(0, start), min(stop, len(self))
        parts = []
        while start < stop:
            number = int(np.searchsorted(self._offsets, start, side="right")) - 1
            end = min(stop, int(self._offsets[number + 1]))
            parts.append(self._map(number)[start - self._offsets[number] : end - self._offsets[number]])
            start = end
        if not parts:
            return np.zeros((0, self.dimension), np.float32)
        return self._unit(np.concatenate(parts), np.arange(stop - sum(map(len, parts)), stop))

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The given rows in the given order, as `read` gives them: float32, shape (len(rows), dimension)."""
        found = np.empty((len(rows), self.dimension), np.float16)
        numbers = np.searchsorted(self._offsets, rows, side="right") - 1
        for number in np.unique(numbers):
            here = numbers == number
            found[here] = self._map(int(number))[rows[here] - self._offsets[number]]
        return self._unit(found, rows)

    def _unit(self, stored_ND: npt.NDArray[np.float16], rows: npt.NDArray[np.int64]) -> Vectors:
        """Stored rows at unit length, unless one of them is damaged: not finite, or zero, which has no direction."""
        wide_ND = stored_ND.astype(np.float32)
        length_N1 = np.linalg.norm(wide_ND, axis=1, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(length_N1) | (length_N1 == 0))
        if len(bad):
            row = int(rows[bad[0]])
            path = self.path / f"{int(np.searchsorted(self._offsets, row, side='right')) - 1:05d}.npy"
            raise StoreError(f"{path}: the vector of {self.ids[row].as_py()!r} is zero or not finite; {AGAIN}")
        wide_ND /= length_N1
        return wide_ND

    def _map(self, number: int) -> npt.NDArray[np.float16]:
        if number not in self._mapped:
            path = self.path / f"{number:05d}.npy"
            try:
                vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise StoreError(f"{path}: damaged shard ({error}); {AGAIN}") from error
            if vectors.shape != (self._manifest.shards[number].rows, self.dimension) or vectors.dtype != np.float16:
                raise StoreError(f"{path}: damaged shard, {vectors.dtype} {vectors.shape}; {AGAIN}")
            self._mapped[number] = vectors
        return self._mapped[number]

    def release(self) -> None:
        """Close the files that reading has mapped, so that their pages no longer count as memory of the process."""
        self._mapped.clear()

    def append(self, ids: Sequence[str], modalities: Sequence[str], vectors_ND: Vectors) -> None:
        """Write one shard. Rows are scaled to unit length and kept as float16.

        Args:
            ids: N ids, none of them in the store yet.
            modalities: N modalities.
            vectors_ND: shape (N, dimension), finite and not zero.

        Raises:
            StoreError: a duplicate id, a vector that is zero or not finite (names the id), a wrong shape, or a full disk.
        """
        if vectors_ND.shape != (len(ids), self.dimension) or len(modalities) != len(ids):
            raise StoreError(
                f"{self.path}: {len(ids)} ids and {len(modalities)} modalities do not fit vectors of shape {vectors_ND.shape}, "
                f"dimension {self.dimension}"
            )
        table = pa.table({"id": pa.array(ids, pa.string()), "modality": pa.array(modalities, pa.string())})
        self._refuse_duplicates(table["id"])
        contents = shard_contents(len(self._manifest.shards), ids, modalities, vectors_ND)
        shard = describe(len(ids), contents)
        known = pa.concat_tables([self._table, table])
        try:
            for name, data in contents.items():
                files.write_bytes(self.path / name, data)
            self._manifest.with_shard(shard).write(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror}); what was there before is still good") from error
        self._manifest = self._manifest.with_shard(shard)
        self._offsets = np.append(self._offsets, self._offsets[-1] + len(ids))
        self.__dict__["_table"] = known

    def adopt(self, shards: Sequence[Shard]) -> None:
        """Take in shards that were made elsewhere and whose files are in the folder, numbered on from the last one.

        Args:
            shards: of them; their ids are unique, and not in the store yet, which is not checked.

        Raises:
            StoreError: a file is missing or of another size, or a full disk.
        """
        manifest = replace(self._manifest, shards=(*self._manifest.shards, *shards))
        for shard in shards:
            check_sizes(self.path, shard.files, AGAIN)
        try:
            manifest.write(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror}); what was there before is still good") from error
        self._load()

    def _refuse_duplicates(self, ids: pa.ChunkedArray) -> None:
        counts = pc.value_counts(ids)
        repeated = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
        again = pc.filter(self.ids, pc.is_in(self.ids, value_set=ids.combine_chunks()))
        for twice in (repeated, again):
            if len(twice):
                raise StoreError(f"{self.path}: id {twice[0].as_py()!r} is there twice; ids must be unique within a store")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store for appending; what another process has appended since opening is seen.

        Raises:
            StoreError: another process holds it.
        """
        with one_writer(self.path):
            self._load()
            yield

    def verify(self) -> None:
        """Read every file and compare its hash with the manifest.

        Raises:
            StoreError: a file has changed. Names it.
        """
        for shard in self._manifest.shards:
            check_contents(self.path, shard.files, AGAIN)


def arrow_ids(ids: Sequence[str] | pa.ChunkedArray, count: int | None = None) -> pa.ChunkedArray:
    """The first `count` ids, by default all, as an Arrow column; made in pieces, so that few exist as Python strings."""
    if isinstance(ids, pa.ChunkedArray):
        return ids.slice(0, count)
    count = len(ids) if count is None else count
    pieces = [pa.array(ids[start : min(start + _PIECE, count)], pa.string()) for start in range(0, count, _PIECE)]
    return pa.chunked_array(pieces, pa.string())
