"""Where searches read vectors from: anything that gives rows by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from umr.errors import StoreError
from umr.protocols import Vectors


class Rows(Protocol):
    """Vectors by row number; `VectorStore`, `VectorView`, `ArrayRows` and `Laid` are such."""

    def __len__(self) -> int: ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def read(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop`: float32, shape (n, D)."""
        ...

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The given rows: float32, shape (len(rows), D)."""
        ...

    def release(self) -> None:
        """Let go of memory that reading has taken and that is on disk as well."""
        ...


class ArrayRows:
    """Vectors that are in memory: shape (N, D), finite."""

    def __init__(self, vectors_ND: Vectors) -> None:
        self.vectors_ND = np.asarray(vectors_ND, np.float32)
        if not np.isfinite(self.vectors_ND).all():
            raise ValueError("vectors must be finite")

    def __len__(self) -> int:
        return len(self.vectors_ND)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.vectors_ND.shape[1]

    def read(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop`."""
        return self.vectors_ND[start:stop]

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The given rows."""
        return self.vectors_ND[rows]

    def release(self) -> None:
        """Nothing: it is nowhere else."""


class Laid:
    """Several sources laid end to end: the stream that one search of many pools reads.

    Args:
        parts: at least one; of one dimension and, where they are stores, of one model.

    Raises:
        StoreError: vectors of different models or dimensions.
    """

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = list(parts)
        check_one_model(self.parts)
        self.offsets = np.cumsum([0] + [len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.parts[0].dimension

    def read(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop`."""
        pieces = []
        for part, offset in zip(self.parts, self.offsets[:-1].tolist(), strict=True):
            low, high = max(start - offset, 0), min(stop - offset, len(part))
            if low < high:
                pieces.append(part.read(low, high))
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.zeros((0, self.dimension), np.float32)

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The given rows."""
        found = np.empty((len(rows), self.dimension), np.float32)
        numbers = np.searchsorted(self.offsets, rows, side="right") - 1
        for number in np.unique(numbers):
            here = numbers == number
            found[here] = self.parts[number].take(rows[here] - self.offsets[number])
        return found

    def release(self) -> None:
        """Let go of what all parts hold."""
        for part in self.parts:
            part.release()


def check_one_model(parts: Sequence[Rows]) -> None:
    """Raise `StoreError` where vectors that are to be compared come from different models or have different lengths."""
    made_by = {getattr(part, "fingerprint", None): getattr(part, "path", "vectors in memory") for part in parts}
    made_by.pop(None, None)
    if len(made_by) > 1:
        names = " and ".join(f"{path} (model {fingerprint})" for fingerprint, path in list(made_by.items())[:2])
        raise StoreError(f"vectors of different models cannot be searched together: {names}; embed both with one model")
    lengths = {part.dimension: part for part in parts}
    if len(lengths) > 1:
        raise StoreError(f"vectors of {' and '.join(map(str, lengths))} numbers cannot be compared; embed them with one model")
