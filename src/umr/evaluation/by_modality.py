"""Exact search in a mixed pool modality by modality: for the candidates of one of them alone, or for scores shifted by modality.

A number added to the scores of all candidates of a modality leaves their order among themselves, so the k best of the whole pool
are among the k best of each modality. Lists by modality, merged, are the exact result for any such numbers; a list of
the best by plain score, rescored, would not be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from umr.evaluation.modality import MODALITIES, Codes
from umr.store import Among

Places = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.float64]


def by_modality(pool: Among, modalities_N: Codes) -> dict[int, Among]:
    """The candidates of a pool of N by modality, a place in `MODALITIES`; those of each keep their rows."""
    return {int(kind): pool.where(modalities_N == kind) for kind in np.unique(modalities_N)}


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

    @classmethod
    def of(cls, found: Mapping[int, tuple[Places, Scores]], queries: int, k: int, size: int) -> Lists:
        """From the rankings of each modality, of at most `k` results."""
        rows_QMK = np.full((queries, len(MODALITIES), k), -1, np.int64)
        scores_QMK = np.full(rows_QMK.shape, -np.inf, np.float32)
        for kind, (rows_QK, scores_QK) in found.items():
            rows_QMK[:, kind, : rows_QK.shape[1]] = rows_QK
            scores_QMK[:, kind, : rows_QK.shape[1]] = scores_QK
        return cls(rows_QMK, scores_QMK, size)

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
