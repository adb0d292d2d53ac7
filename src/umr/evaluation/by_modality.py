"""Exact search in a mixed pool modality by modality: for the candidates of one of them alone, or for scores shifted by modality.

A number added to the scores of all candidates of a modality leaves their order among themselves, so the k best of the whole pool
are among the k best of each modality. Lists by modality, merged, are the exact result for any such numbers; a list of
the best by plain score, rescored, would not be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from umr.evaluation.modality import MODALITIES, Codes
from umr.progress import Bar
from umr.protocols import Vectors
from umr.store import Rows, exact_topk

Places = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Part:
    """Some rows of a pool."""

    whole: Rows
    rows: Places

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> Vectors:
        return self.whole.take(self.rows[start:stop])

    def take(self, rows: Places) -> Vectors:
        return self.whole.take(self.rows[rows])


def topk_within(queries_QD: Vectors, pool: Rows, modalities_N: Codes, wanted: int, k: int, bar: Bar | None = None) -> tuple[Places, Scores]:
    """`exact_topk` over the candidates of one modality alone.

    Args:
        queries_QD: float32, shape (Q, D).
        pool: N candidates.
        modalities_N: their modalities.
        wanted: the modality searched, a place in `MODALITIES`.
        k: results a query.
        bar: advanced by the number of candidates searched.

    Returns:
        Rows of the whole pool and scores, both of shape (Q, min(k, candidates of that modality)).
    """
    part = _Part(pool, np.flatnonzero(modalities_N == wanted))
    rows_QK, scores_QK = exact_topk(queries_QD, part, k, bar=bar)
    return part.rows[rows_QK], scores_QK


@dataclass(frozen=True)
class Lists:
    """The best results of Q queries among the candidates of each modality, best first; of equal scores the lower row comes first.

    Attributes:
        rows_QMK: rows of the pool, M as in `MODALITIES`; -1 where a modality has fewer than K candidates.
        scores_QMK: inner products; there minus infinity.
        size: number of candidates in the pool.
    """

    rows_QMK: Places
    scores_QMK: Scores
    size: int

    def shifted(self, offsets_QM: Offsets) -> Offsets:
        """Scores with the offset of their modality added in double precision, in which no two scores become one. (Q, M, K)."""
        return np.asarray(self.scores_QMK + offsets_QM[:, :, None], np.float64)

    def merged(self, offsets_QM: Offsets) -> tuple[Places, Scores]:
        """The K best of the whole pool by shifted score, of equal ones the lower row first.

        Args:
            offsets_QM: finite; what each query adds to the scores of each modality.

        Returns:
            Rows and shifted scores, both of shape (Q, min(K, size)).
        """
        queries, kinds, depth = self.rows_QMK.shape
        shifted_QL = self.shifted(offsets_QM).reshape(queries, kinds * depth)
        rows_QL = self.rows_QMK.reshape(queries, kinds * depth)
        order_QK = np.lexsort((rows_QL, -shifted_QL), axis=1)[:, : min(depth, self.size)]
        return np.take_along_axis(rows_QL, order_QK, 1), np.take_along_axis(shifted_QL, order_QK, 1).astype(np.float32)


def search_each(queries_QD: Vectors, pool: Rows, modalities_N: Codes, k: int, bar: Bar | None = None) -> Lists:
    """Find the `k` best candidates of every modality for every query, in one pass over the pool.

    Args:
        queries_QD: float32, shape (Q, D).
        pool: N candidates.
        modalities_N: their modalities.
        k: results a query and modality.
        bar: advanced by N in all.
    """
    rows_QMK = np.full((len(queries_QD), len(MODALITIES), k), -1, np.int64)
    scores_QMK = np.full(rows_QMK.shape, -np.inf, np.float32)
    for kind in np.unique(modalities_N):
        rows_QK, scores_QK = topk_within(queries_QD, pool, modalities_N, int(kind), k, bar)
        rows_QMK[:, kind, : rows_QK.shape[1]] = rows_QK
        scores_QMK[:, kind, : rows_QK.shape[1]] = scores_QK
    return Lists(rows_QMK, scores_QMK, len(pool))
