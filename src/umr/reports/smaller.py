"""Vectors as they would be if less was kept of each: its first dimensions, and fewer bits a number."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from umr.protocols import Vectors
from umr.store import Rows

Precision: TypeAlias = Literal["fp16", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_LEAST = 16
_HALVINGS = 4


def dimensions_of(full: int) -> list[int]:
    """The full dimension and its halves, at most four and none below 16."""
    return [full, *(full >> step for step in range(1, _HALVINGS + 1) if full >> step >= _LEAST)]


def bytes_of(dimension: int, precision: Precision) -> int:
    """Bytes that a vector takes: int8 has a scale of two bytes."""
    return {"fp16": 2 * dimension, "int8": dimension + 2, "binary": -(-dimension // 8)}[precision]


def shrink(vectors_ND: Vectors, dimension: int, precision: Precision) -> Vectors:
    """What is left of vectors, as a search would read it back: float32, shape (N, dimension).

    The prefix is scaled to unit length again (Matryoshka representation learning, Kusupati et al., NeurIPS 2022). int8: the
    largest absolute value of a vector becomes 127, the others are rounded on that scale. binary: signs over sqrt(dimension).

    Args:
        vectors_ND: unit vectors as stored, in fp16.
        dimension: leading numbers kept.
        precision: of each.
    """
    kept_ND = vectors_ND[:, :dimension]
    if dimension < vectors_ND.shape[1]:
        kept_ND = kept_ND / np.maximum(np.linalg.norm(kept_ND, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    if precision == "int8":
        scale_N1 = np.maximum(np.abs(kept_ND).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / 127
        kept_ND = np.rint(kept_ND / scale_N1) * scale_N1
    elif precision == "binary":
        kept_ND = np.where(kept_ND < 0, -1, 1) / np.sqrt(dimension)
    return np.asarray(kept_ND, np.float32)


class SmallerRows:
    """Candidates of which less is kept.

    Args:
        rows: the stored ones.
        dimension: leading numbers kept.
        precision: of each.
    """

    def __init__(self, rows: Rows, dimension: int, precision: Precision) -> None:
        self._rows, self._dimension, self._precision = rows, dimension, precision

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def read(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop`: float32, shape (n, dimension)."""
        return shrink(self._rows.read(start, stop), self._dimension, self._precision)

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The given rows: float32, shape (len(rows), dimension)."""
        return shrink(self._rows.take(rows), self._dimension, self._precision)

    def release(self) -> None:
        """Let go of what the stored ones hold."""
        self._rows.release()
