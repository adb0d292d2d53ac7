"""Exact search: the k best candidates of every query, by inner product, over vectors that need not fit in memory.

Candidates stream past in blocks. A single-precision matrix product finds somewhat more than k candidates a query; these
are scored again in double precision, each pair on its own. A matrix product's last bits depend on its shape and on the number
of threads, the second scoring does not: blocks and threads change neither ids nor scores, and equal vectors get equal
scores. (More than `MARGIN` candidates equal to the k-th within single precision could still change places at the end.)
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from umr.progress import Bar
from umr.protocols import Vectors

Places: TypeAlias = npt.NDArray[np.int64]
Scores: TypeAlias = npt.NDArray[np.float32]

BLOCK = 8192  # candidates a matrix product
QUERIES = 512  # queries a matrix product: 16 MiB of scores, which stay near the cache
MARGIN = 32
RESCORE_BYTES = 32 << 20
_LOW = np.int64(0xFFFFFFFF)


class Rows(Protocol):
    """Candidate vectors by row number; `VectorStore`, `VectorView` and `ArrayRows` are such."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop`: float32, shape (n, D)."""
        ...

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The given rows: float32, shape (len(rows), D)."""
        ...


class ArrayRows:
    """Candidate vectors that are in memory: shape (N, D)."""

    def __init__(self, vectors_ND: Vectors) -> None:
        self.vectors_ND = np.asarray(vectors_ND, np.float32)

    def __len__(self) -> int:
        return len(self.vectors_ND)

    def read(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop`."""
        return self.vectors_ND[start:stop]

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The given rows."""
        return self.vectors_ND[rows]


def exact_topk(queries_QD: Vectors, candidates: Rows, k: int, block: int = BLOCK, bar: Bar | None = None) -> tuple[Places, Scores]:
    """Find the `k` candidates with the largest inner product, best first; of equal scores the lower row comes first.

    Args:
        queries_QD: finite float32, shape (Q, D).
        candidates: N < 2**32 vectors of the same dimension.
        k: results a query; where there are fewer than k candidates, all of them are returned.
        block: candidates read at a time; changes memory use (about `4 * block * (D + QUERIES)` bytes) and speed only.
        bar: advanced by the number of candidates seen.

    Returns:
        Row numbers, int64, and scores, float32, both of shape (Q, min(k, N)).
    """
    if not np.isfinite(queries_QD).all():
        raise ValueError("queries must be finite")
    queries_QD = np.ascontiguousarray(queries_QD, np.float32)
    depth = min(k + MARGIN, len(candidates))
    best_QM = np.full((len(queries_QD), depth), _NOTHING)
    for start in range(0, len(candidates), block):
        block_BD = candidates.read(start, min(start + block, len(candidates)))
        for first in range(0, len(queries_QD), QUERIES):
            scores_QB = queries_QD[first : first + QUERIES] @ block_BD.T
            for low, high in _slices(start, len(block_BD)):
                _merge(best_QM[first : first + QUERIES], scores_QB[:, low:high], start + low)
        if bar:
            bar.advance(len(block_BD))
    return _rescore(queries_QD, candidates, _LOW - (best_QM & _LOW), k)


def _slices(start: int, width: int) -> list[tuple[int, int]]:
    """The columns of a block to merge at a time: few at the very beginning, where everything is among the best so far."""
    if start:
        return [(0, width)]
    edges = [0, *(256 << n for n in range(32) if 256 << n < width), width]
    return list(pairwise(edges))


def _merge(best_QM: Places, scores_QB: Scores, start: int) -> None:
    """Put what belongs to the best so far into `best_QM`, in place.

    An entry is one integer that orders first by score, then by lower row: the score's bits, turned so that they compare
    as integers do, above the complement of the row number.
    """
    depth = best_QM.shape[1]
    worst_Q1 = _unordered(best_QM.min(axis=1, keepdims=True) >> 32)
    hits_H = np.flatnonzero(scores_QB >= worst_Q1)  # after the first blocks of a long scan there is almost nothing
    queries_H, columns_H = np.divmod(hits_H, scores_QB.shape[1])
    live, begin, count = np.unique(queries_H, return_index=True, return_counts=True)
    if not len(live):
        return
    keys_LW = np.full((len(live), count.max()), _NOTHING)
    place = np.arange(len(queries_H)) - np.repeat(begin, count)
    keys_LW[np.repeat(np.arange(len(live)), count), place] = (_ordered(scores_QB[queries_H, columns_H]) << 32) | (
        _LOW - (start + columns_H)
    )
    both = np.concatenate([best_QM[live], keys_LW], axis=1)
    best_QM[live] = np.partition(both, -depth, axis=1)[:, -depth:]


def _ordered(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    bits = (scores + np.float32(0)).view(np.int32)  # the sum turns -0 into +0, which must compare equal
    return np.asarray(bits ^ ((bits >> 31) & 0x7FFFFFFF), np.int64)


def _unordered(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    bits = keys.astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


_NOTHING = _ordered(np.array([-np.inf], np.float32))[0] << 32


def _rescore(queries_QD: Vectors, candidates: Rows, rows_QM: Places, k: int) -> tuple[Places, Scores]:
    depth = rows_QM.shape[1]
    scores_QM = np.empty(rows_QM.shape, np.float32)
    step = max(1, RESCORE_BYTES // (8 * max(1, depth) * queries_QD.shape[1]))
    for first in range(0, len(queries_QD), step):
        part_SD = queries_QD[first : first + step].astype(np.float64)
        found_SMD = candidates.take(rows_QM[first : first + step].ravel()).reshape(len(part_SD), depth, part_SD.shape[1])
        scores_QM[first : first + step] = (found_SMD * part_SD[:, None, :]).sum(axis=-1)
    order_QM = np.lexsort((rows_QM, -scores_QM), axis=1)[:, :k]
    return np.take_along_axis(rows_QM, order_QM, 1), np.take_along_axis(scores_QM, order_QM, 1)
