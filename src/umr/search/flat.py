"""Candidates of a partition, by going through sign bits of all its rows.

Where q and d are unit vectors and m is the partition's mean, the share of coordinates in which q - m and d - m have equal signs grows
with the cosine between them (Charikar, "Similarity Estimation Techniques from Rounding Algorithms", 2002). A bit a coordinate is a
sixteenth of the fp16 vectors, so a scan for the few hundred nearest in Hamming distance is as much faster; those are scored exactly, see
`umr.search.contest`. Both sides are taken about the partition's mean because vectors of one modality share most of it: about the origin,
most of their signs agree, and tell nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from types import ModuleType

import numpy as np
import numpy.typing as npt

from umr.protocols import Vectors
from umr.search.scoring import BLOCK, Half, Rows, widen
from umr.search.together import FEW, Work, done, threads

SLICE = 1 << 16  # rows from which a scan for one query is shared among threads
_SAMPLE = 20_000  # rows that the mean is taken of
_COUNTED = 1 << 28  # bytes that faiss may set aside to put candidates in order by counting; it touches few of them


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
        return done([self.work(queries_QD, depth, rows)], len(queries_QD) < FEW)[0]

    def work(self, queries_QD: Vectors, depth: int, rows: Rows | None = None) -> Work[list[Rows]]:
        """What `nearest` has to do."""
        total = self._count if rows is None else len(rows)
        depth = min(depth, total)
        if not depth:
            return Work([], lambda _: [np.empty(0, np.int64)] * len(queries_QD))
        asked_QB = pack(queries_QD, self.mean_D)
        pieces = [(0, total)]
        if len(queries_QD) < FEW and total >= 2 * SLICE:
            edges = np.linspace(0, total, min(threads(), total // SLICE) + 1).astype(int).tolist()
            pieces = list(pairwise(edges))
        scan = self._scan_faiss if self._faiss else self._scan_numpy
        return Work([partial(scan, asked_QB, depth, rows, low, high) for low, high in pieces], partial(_joined, depth))

    def _scan_faiss(self, asked_QB: npt.NDArray[np.uint8], depth: int, rows: Rows | None, low: int, high: int) -> tuple[Rows, Rows]:
        assert self._faiss
        bits_NB = self._bits[low:high] if rows is None else self._bits.take(rows[low:high], axis=0)
        keep = min(depth, high - low)
        # Counting takes a fraction of a heap's time, and room for all candidates at every distance that there can be.
        room = keep * (8 * bits_NB.shape[1] + 1) * 8
        step, way = (len(asked_QB), "hc") if room > _COUNTED else (_COUNTED // room, "mc")
        with in_this_thread(self._faiss, len(asked_QB) < FEW):
            parts = [
                self._faiss.knn_hamming(asked_QB[start : start + step], bits_NB, keep, variant=way)
                for start in range(0, len(asked_QB), step)
            ]
        distances, places = (np.concatenate(part) for part in zip(*parts, strict=True))
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


def _joined(depth: int, parts: list[tuple[Rows, Rows]]) -> list[Rows]:
    """The nearest of several pieces, given the distances and rows of each."""
    if len(parts) == 1:
        return list(parts[0][1])
    distances, places = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    order = np.argsort(distances, axis=1, kind="stable")[:, :depth]
    return list(np.take_along_axis(places, order, 1))


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
