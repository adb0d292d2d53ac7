"""Codes of a vector store on disk, beside its vectors.

    <store>/small/<dimension>-<precision>/codes.npy          a row for each of the store's, in its order
    <store>/small/<dimension>-<precision>/quantiser.json     center and steps, see `umr.store.quantiser`
    <store>/small/<dimension>-<precision>/made_from          hash of the store's manifest: codes of a store that has grown are refused

The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from umr import files
from umr.errors import StoreError
from umr.progress import Bar
from umr.protocols import Vectors
from umr.store.asked import Places
from umr.store.best import Scores
from umr.store.quantiser import Coded, Codes, Quantiser
from umr.store.smaller import Mapped, Small, first_step, second_step
from umr.store.vectors import VectorStore

_BLOCK = 8192
_AGAIN = "make them again with SmallStore.make"


class SmallStore:
    """Codes of a vector store's rows, in its order.

    Args:
        store: whose codes.
        dimension: leading components kept.
        precision: of each.

    Attributes:
        store: the one given.
        path: folder of the codes.
        quantiser: what the codes stand for.
        codes: all of them, mapped from the file.

    Raises:
        StoreError: they were not made, the store has changed since, or they are damaged.
    """

    def __init__(self, store: VectorStore, dimension: int, precision: Coded) -> None:
        self.store, self.path = store, folder_of(store, dimension, precision)
        if not self.path.is_dir():
            raise StoreError(f"{self.path}: no codes here; {_AGAIN}")
        self.quantiser = Quantiser.load(self.path / "quantiser.json")
        if (self.path / "made_from").read_text("utf-8") != _label(store):
            raise StoreError(f"{self.path}: codes of other vectors than {store.path} has now; {_AGAIN}")
        path = self.path / "codes.npy"
        try:
            self.codes: Codes = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: damaged codes ({error}); {_AGAIN}") from error
        if self.codes.shape != (len(store), self.quantiser.width):
            raise StoreError(f"{path}: damaged codes, shape {self.codes.shape}; {_AGAIN}")

    @classmethod
    def make(cls, store: VectorStore, precision: Coded, dimension: int | None = None, bar: Bar | None = None) -> SmallStore:
        """Write the codes of a store, in place of older ones.

        Args:
            store: at least one vector.
            precision: of the codes.
            dimension: leading components to keep, which the model should have been trained for; None for all.
            bar: advanced by the number of vectors.

        Raises:
            StoreError: an empty store, a dimension that it does not have, or no room.
        """
        dimension = store.dimension if dimension is None else dimension
        if not len(store) or not 1 <= dimension <= store.dimension:
            raise StoreError(f"{store.path}: {len(store)} vectors of {store.dimension} components have no codes of {dimension}")
        quantiser = Quantiser.of(store, precision, store.fingerprint, dimension)
        folder = folder_of(store, dimension, precision)
        try:
            folder.parent.mkdir(exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
            try:
                _write(store, quantiser, temporary, bar)
                os.chmod(temporary, 0o755)
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written ({error.strerror}); make room or free the folder") from error
        return cls(store, dimension, precision)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def small(self) -> Small:
        """The same for `umr.store.smaller`."""
        rows, quantiser = _Codes(self.codes), self.quantiser
        kept = Mapped(rows, quantiser.dimension, quantiser.vectors)
        return Small(kept, kept if quantiser.precision == "int8" else Mapped(rows, quantiser.dimension, quantiser.units), quantiser)

    def topk(self, queries_QD: Vectors, k: int, rescore: bool = True) -> tuple[Places, Scores]:
        """The k best candidates of each query, see `umr.store.smaller`.

        Args:
            queries_QD: unit vectors, whole.
            k: results a query.
            rescore: put the best in order by the store's fp16 vectors, not by what the codes stand for.

        Returns:
            Row numbers of the store, and inner products, both of shape (Q, min(k, N)).
        """
        small = self.small
        return second_step(queries_QD, first_step(queries_QD, small, k), self.store if rescore else small.kept, k)


class _Codes:
    """Codes as rows, for `Mapped`."""

    def __init__(self, codes: Codes) -> None:
        self._codes, self.dimension = codes, codes.shape[1]

    def __len__(self) -> int:
        return len(self._codes)

    def read(self, start: int, stop: int) -> Codes:
        return self._codes[start:stop]

    def take(self, rows: npt.NDArray[np.int64]) -> Codes:
        return self._codes[rows]

    def release(self) -> None:
        pass


def folder_of(store: VectorStore, dimension: int, precision: Coded) -> Path:
    """Where the codes of a store are."""
    return store.path / "small" / f"{dimension}-{precision}"


def _label(store: VectorStore) -> str:
    return hashlib.blake2b((store.path / "manifest.json").read_bytes(), digest_size=8).hexdigest()


def _write(store: VectorStore, quantiser: Quantiser, folder: Path, bar: Bar | None) -> None:
    kind = np.int8 if quantiser.precision == "int8" else np.uint8
    codes = np.lib.format.open_memmap(folder / "codes.npy", "w+", kind, (len(store), quantiser.width))
    for start in range(0, len(store), _BLOCK):
        stop = min(start + _BLOCK, len(store))
        codes[start:stop] = quantiser.codes(store.read(start, stop))
        if bar is not None:
            bar.advance(stop - start)
    codes.flush()
    files.flush(folder / "codes.npy")
    quantiser.save(folder / "quantiser.json")
    files.write_text(folder / "made_from", _label(store))
    files.flush(folder)
