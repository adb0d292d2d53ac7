"""Search of a partition by going through it: exactly, or by sign bits with the best rescored.

Sign bits: where q and d are unit vectors and m is the partition's mean, the share of coordinates in which q - m and d - m have equal
signs grows with the cosine between them (Charikar, "Similarity Estimation Techniques from Rounding Algorithms", 2002). A bit a coordinate
is a sixteenth of the fp16 vectors, so a scan for the few hundred nearest in Hamming distance is as much faster; those are scored exactly.
Both sides are taken about the partition's mean because vectors of one modality share most of it: about the origin, most of their signs
agree, and tell nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from umr.protocols import Vectors
from umr.store.rescoring import slack

Half: TypeAlias = npt.NDArray[np.float16]
Rows: TypeAlias = npt.NDArray[Any]  # row numbers, int32 or int64

BLOCK = 8192
SCORES = 1 << 24  # scores held at a time: 64 MiB
SLICE = 1 << 16  # rows from which a scan for one query is shared among threads
FEW = 4  # queries below which a search keeps to its thread
_SAMPLE = 20_000  # rows that the mean is taken of
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


def faiss_or_none() -> ModuleType | None:
    """The faiss module, where it is installed (`pip install 'umr[fast]'`)."""
    return _faiss()


@cache
def _faiss() -> ModuleType | None:
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def widen(stored_ND: Half) -> Vectors:
    """fp16 as float32. By torch, which uses the processor's instruction for it: NumPy's conversion took 20 times as long.

    What one query needs is converted in pieces so small that torch keeps to this thread. Waiting for its other threads took a
    hundred times as long as the work where other processes kept the processors busy; the same goes for faiss (`in_this_thread`).
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


@contextmanager
def in_this_thread(faiss: ModuleType, alone: bool) -> Iterator[None]:
    """Let faiss keep to the calling thread, if `alone`; other threads are not affected."""
    if not alone:
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def products(queries_QD: Vectors, wide_ND: Vectors) -> Vectors:
    """Inner products, shape (Q, N); those of a few queries by this thread alone."""
    if len(queries_QD) >= FEW:
        return queries_QD @ wide_ND.T
    return np.stack([np.einsum("nd,d->n", wide_ND, query_D) for query_D in queries_QD])


def finish(query_D: Vectors, vectors_ND: Half, rows: Rows, first: Vectors, k: int) -> Found:
    """The best of some rows by their scores in single precision, scored again.

    Args:
        query_D: a unit vector.
        vectors_ND: all rows.
        rows: those scored, shape (R,).
        first: their scores, shape (R,).
        k: results wanted.
    """
    if len(rows) > k:
        doubt = 2 * float(slack(query_D[None], 1.01)[0, 0])
        near = np.flatnonzero(first >= np.partition(first, -k)[-k] - doubt)
        rows = rows[near]
    wide_CD = widen(vectors_ND.take(rows, axis=0))
    scores = np.asarray((wide_CD * query_D.astype(np.float64)).sum(axis=-1), np.float32)
    if len(rows) > k:
        best = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        rows, scores = rows[best], scores[best]
    return Found(rows, scores)


def exact(queries_QD: Vectors, vectors_ND: Half, k: int, rows: Rows | None = None) -> list[Found]:
    """The k best of the rows given, or of all, by going through their vectors. Meant for thousands of rows."""
    rows = np.arange(len(vectors_ND)) if rows is None else rows
    found = []
    step = max(1, SCORES // max(1, len(rows)))
    for start in range(0, len(queries_QD), step):
        some_QD = queries_QD[start : start + step]
        first_QR = np.empty((len(some_QD), len(rows)), np.float32)
        for begin in range(0, len(rows), BLOCK):
            first_QR[:, begin : begin + BLOCK] = products(some_QD, widen(vectors_ND.take(rows[begin : begin + BLOCK], axis=0)))
        found += [finish(query_D, vectors_ND, rows, first_R, k) for query_D, first_R in zip(some_QD, first_QR, strict=True)]
    return found


def rescore(query_D: Vectors, vectors_ND: Half, rows: Rows, k: int) -> Found:
    """The k best of some candidates."""
    return finish(query_D, vectors_ND, rows, products(query_D[None], widen(vectors_ND.take(rows, axis=0)))[0], k)


class Signs:
    """Packed sign bits of a partition, in memory.

    Args:
        packed_NB: from `pack`, uint8.
        mean_D: what the vectors are taken about.
        faiss: module that scans, or None to scan with NumPy, which takes three times as long.
    """

    def __init__(self, packed_NB: npt.NDArray[np.uint8], mean_D: Vectors, faiss: ModuleType | None) -> None:
        self.mean_D = mean_D
        self._faiss = faiss
        self._bits = packed_NB if faiss else np.ascontiguousarray(packed_NB.view(np.uint64).T)
        self._count = len(packed_NB)

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Memory they take."""
        return self._bits.nbytes

    def nearest(self, queries_QD: Vectors, depth: int, rows: Rows | None = None) -> list[Rows]:
        """Rows of least Hamming distance to each query, nearest first.

        Args:
            queries_QD: unit vectors.
            depth: rows wanted.
            rows: rows to choose from; by default all.
        """
        total = self._count if rows is None else len(rows)
        depth = min(depth, total)
        if not depth:
            return [np.empty(0, np.int64)] * len(queries_QD)
        asked_QB = pack(queries_QD, self.mean_D)
        pieces = [(0, total)]
        if len(queries_QD) < FEW and total >= 2 * SLICE:
            edges = np.linspace(0, total, min(threads(), total // SLICE) + 1).astype(int).tolist()
            pieces = list(pairwise(edges))
        scan = self._scan_faiss if self._faiss else self._scan_numpy
        parts = together([partial(scan, asked_QB, depth, rows, low, high) for low, high in pieces])
        if len(parts) == 1:
            return list(parts[0][1])
        distances, places = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        order = np.argsort(distances, axis=1, kind="stable")[:, :depth]
        return list(np.take_along_axis(places, order, 1))

    def _scan_faiss(self, asked_QB: npt.NDArray[np.uint8], depth: int, rows: Rows | None, low: int, high: int) -> tuple[Rows, Rows]:
        assert self._faiss
        bits = self._bits[low:high] if rows is None else self._bits.take(rows[low:high], axis=0)
        with in_this_thread(self._faiss, len(asked_QB) < FEW):
            distances, places = self._faiss.knn_hamming(asked_QB, bits, min(depth, high - low))
        return distances, (places + low if rows is None else rows[places + low])

    def _scan_numpy(self, asked_QB: npt.NDArray[np.uint8], depth: int, rows: Rows | None, low: int, high: int) -> tuple[Rows, Rows]:
        bits = self._bits[:, low:high] if rows is None else self._bits.take(rows[low:high], axis=1)
        keep = min(depth, high - low)
        places_QM = np.empty((len(asked_QB), keep), np.int64)
        distances_QM = np.empty((len(asked_QB), keep), np.int32)
        for number, words_W in enumerate(asked_QB.view(np.uint64)):
            far = _hamming(words_W, bits.view(np.uint64))
            within = np.flatnonzero(far <= np.searchsorted(np.bincount(far).cumsum(), keep))
            best = within[np.argsort(far[within], kind="stable")[:keep]]
            distances_QM[number], places_QM[number] = far[best], best
        return distances_QM, (places_QM + low if rows is None else rows[places_QM + low])


def _hamming(words_W: npt.NDArray[np.uint64], bits_WN: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
    """Distances to N rows, whose words lie apart so that each step goes through memory in order."""
    far = np.zeros(bits_WN.shape[1], np.uint16)
    for start in range(0, len(far), 2 * BLOCK):
        some = slice(start, start + 2 * BLOCK)
        for word, column in zip(words_W, bits_WN, strict=True):
            far[some] += np.bitwise_count(column[some] ^ word)
    return far


def pack(wide_ND: Vectors, mean_D: Vectors) -> npt.NDArray[np.uint8]:
    """Sign bits about the mean, filled up to whole words of 64. Shape (N, B)."""
    bits_NB = np.packbits(wide_ND > mean_D, axis=1)
    missing = -bits_NB.shape[1] % 8
    return np.concatenate([bits_NB, np.zeros((len(bits_NB), missing), np.uint8)], axis=1) if missing else bits_NB


def pack_all(vectors_ND: Half, mean_D: Vectors) -> npt.NDArray[np.uint8]:
    """`pack` of a whole partition, a block at a time."""
    width = -(-vectors_ND.shape[1] // 64) * 8
    packed_NB = np.empty((len(vectors_ND), width), np.uint8)
    for start in range(0, len(vectors_ND), BLOCK):
        packed_NB[start : start + BLOCK] = pack(widen(vectors_ND[start : start + BLOCK]), mean_D)
    return packed_NB


def mean_of(vectors_ND: Half) -> Vectors:
    """Mean of a sample of rows. Shape (D,)."""
    if not len(vectors_ND):
        return np.zeros(vectors_ND.shape[1], np.float32)
    return widen(vectors_ND[sample_rows(len(vectors_ND), _SAMPLE)]).mean(axis=0)


def sample_rows(total: int, count: int, seed: int = 0) -> Rows:
    """Some row numbers, ascending: all of them where there are no more than `count`."""
    if total <= count:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def together(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Results of jobs that let go of the interpreter, run at the same time."""
    return [jobs[0]()] if len(jobs) == 1 else list(_pool().map(lambda job: job(), jobs))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="umr-search")
