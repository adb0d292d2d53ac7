"""Scores of stored vectors: in single precision for all that may be near, in double precision for what is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from umr.protocols import Vectors
from umr.search.together import FEW
from umr.store.rescoring import slack

Half: TypeAlias = npt.NDArray[np.float16]
Rows: TypeAlias = npt.NDArray[Any]  # row numbers, int32 or int64

BLOCK = 8192
SCORES = 1 << 24  # scores held at a time: 64 MiB
_LITTLE, _MUCH = (1 << 15) - 1, 1 << 22  # numbers that torch converts in one thread, and from which several are worth while


@dataclass(frozen=True)
class Found:
    """Rows that can be among the best of one query: all of the k best, and what ties with the last of them.

    Attributes:
        rows: row numbers.
        scores: inner products, each on its own in double precision, so that equal vectors have equal scores.
    """

    rows: Rows
    scores: npt.NDArray[np.float32]


def widen(stored_ND: Half) -> Vectors:
    """fp16 as float32. By torch, which uses the processor's instruction for it: NumPy's conversion took 20 times as long.

    What one query needs is converted in pieces so small that torch keeps to this thread. Waiting for its other threads took a
    hundred times as long as the work where other processes kept the processors busy; the same goes for faiss.
    """
    import torch

    if not stored_ND.flags.writeable:  # a read-only file; torch wants to be able to write
        stored_ND = stored_ND.copy()
    stored = torch.from_numpy(np.ascontiguousarray(stored_ND))
    if stored_ND.size > _MUCH:
        return stored.float().numpy()
    wide = torch.empty(stored.shape, dtype=torch.float32)
    step = max(1, _LITTLE // max(1, stored_ND[:1].size))
    for start in range(0, len(stored), step):
        wide[start : start + step] = stored[start : start + step]
    return wide.numpy()


def scores_of(query_D: Vectors, vectors_ND: Half, rows: Rows) -> Vectors:
    """Inner products of one query with some rows, each on its own, in this thread. Shape (R,).

    A few rows at a time pass through the same two buffers, which stay in the processor's cache; `vecdot` keeps to its thread, where a
    product of a matrix would not.
    """
    import torch

    step = max(1, _LITTLE // max(1, vectors_ND.shape[1]))
    half_BD = np.empty((min(step, len(rows)), vectors_ND.shape[1]), np.float16)
    wide_BD = np.empty(half_BD.shape, np.float32)
    stored, wide = torch.from_numpy(half_BD), torch.from_numpy(wide_BD)
    scores_R = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        if len(some) < len(half_BD):
            half_BD, wide_BD, stored, wide = half_BD[: len(some)], wide_BD[: len(some)], stored[: len(some)], wide[: len(some)]
        vectors_ND.take(some, axis=0, out=half_BD, mode="clip")  # by other modes NumPy takes them to a buffer first
        wide.copy_(stored)
        np.vecdot(wide_BD, query_D, out=scores_R[start : start + step])
    return scores_R


def doubt(query_D: Vectors) -> float:
    """How far apart two scores in single precision may be of vectors whose true scores are equal."""
    return 2 * float(slack(query_D[None], 1.01)[0, 0])


def finish(query_D: Vectors, vectors_ND: Half, rows: Rows) -> Found:
    """Score rows in double precision."""
    wide_CD = widen(vectors_ND.take(rows, axis=0))
    return Found(rows, np.asarray((wide_CD * query_D.astype(np.float64)).sum(axis=-1), np.float32))


def the_best(found: Found, k: int) -> Found:
    """The k best, and what ties with the last."""
    if len(found.rows) <= k:
        return found
    best = np.flatnonzero(found.scores >= least_of(found.scores, k))
    return Found(found.rows[best], found.scores[best])


def least_of(scores: Vectors, k: int) -> float:
    """The k-th best score; where there are fewer, one below all."""
    return float(np.partition(scores, -k)[-k]) if len(scores) >= k else -np.inf


def exact(queries_QD: Vectors, vectors_ND: Half, k: int, rows: Rows | None = None) -> list[Found]:
    """The k best of the rows given, or of all, by going through their vectors. Meant for thousands of rows."""
    rows = np.arange(len(vectors_ND)) if rows is None else rows
    if len(queries_QD) < FEW:
        return [_nearest(query_D, vectors_ND, k, rows, scores_of(query_D, vectors_ND, rows)) for query_D in queries_QD]
    found = []
    step = max(1, SCORES // max(1, len(rows)))
    for start in range(0, len(queries_QD), step):
        some_QD = queries_QD[start : start + step]
        first_QR = np.empty((len(some_QD), len(rows)), np.float32)
        for begin in range(0, len(rows), BLOCK):
            first_QR[:, begin : begin + BLOCK] = some_QD @ widen(vectors_ND.take(rows[begin : begin + BLOCK], axis=0)).T
        found += [_nearest(query_D, vectors_ND, k, rows, first_R) for query_D, first_R in zip(some_QD, first_QR, strict=True)]
    return found


def rescore(query_D: Vectors, vectors_ND: Half, rows: Rows, k: int) -> Found:
    """The k best of some candidates."""
    return _nearest(query_D, vectors_ND, k, rows, scores_of(query_D, vectors_ND, rows))


def _nearest(query_D: Vectors, vectors_ND: Half, k: int, rows: Rows, first_R: Vectors) -> Found:
    near = np.flatnonzero(first_R >= least_of(first_R, k) - doubt(query_D))
    return the_best(finish(query_D, vectors_ND, rows[near]), k)
