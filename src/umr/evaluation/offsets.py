"""What offsets by modality do to the rank of right answers, and the search for those that do most good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from umr.evaluation.by_modality import Lists
from umr.evaluation.modality import Codes, Flags

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class JudgedLists:
    """The best candidates of each modality for Q queries of one setting, and where right answers are among them.

    Attributes:
        lists: the candidates.
        right_QM: score of the best right answer of each modality, minus infinity where its list has none.
        right_rows_QM: the row of that answer.
        wanted_Q: modality looked for.
        cut: first results that count: 5 where the main metric is hit@5.
    """

    lists: Lists
    right_QM: Vector
    right_rows_QM: npt.NDArray[np.int64]
    wanted_Q: Codes
    cut: int

    @classmethod
    def of(cls, lists: Lists, relevant: Sequence[npt.NDArray[np.int64]], wanted_Q: Codes, cut: int) -> JudgedLists:
        """Find the right answers.

        Args:
            lists: of Q queries.
            relevant: for each query the rows of its right answers.
            wanted_Q, cut: as above.
        """
        found_QMK = np.stack([np.isin(rows_MK, right) for rows_MK, right in zip(lists.rows_QMK, relevant, strict=True)])
        first_QM1 = found_QMK.argmax(axis=2)[:, :, None]
        scores_QM = np.take_along_axis(lists.scores_QMK, first_QM1, 2)[:, :, 0].astype(np.float64)
        rows_QM = np.take_along_axis(lists.rows_QMK, first_QM1, 2)[:, :, 0]
        return cls(lists, np.where(found_QMK.any(axis=2), scores_QM, -np.inf), rows_QM, wanted_Q, cut)

    def some(self, here_Q: Flags) -> JudgedLists:
        """Some of the queries."""
        lists = Lists(self.lists.rows_QMK[here_Q], self.lists.scores_QMK[here_Q], self.lists.size)
        return JudgedLists(lists, self.right_QM[here_Q], self.right_rows_QM[here_Q], self.wanted_Q[here_Q], self.cut)

    def ranks(self, offsets_M: Vector) -> Vector:
        """Rank of the first right answer in the order of shifted scores, shape (Q,).

        Exact as far as the lists are deep, beyond that any larger number; infinite where they hold no right answer.
        """
        shifted_QM = self.right_QM + offsets_M
        best_Q1 = np.lexsort((self.right_rows_QM, -shifted_QM), axis=1)[:, :1]
        score_Q11 = np.take_along_axis(shifted_QM, best_Q1, 1)[:, :, None]
        row_Q11 = np.take_along_axis(self.right_rows_QM, best_Q1, 1)[:, :, None]
        all_QMK = self.lists.shifted(offsets_M[None])
        ahead_QMK = (all_QMK > score_Q11) | ((all_QMK == score_Q11) & (self.lists.rows_QMK < row_Q11))
        return np.where(np.isfinite(score_Q11[:, 0, 0]), 1.0 + ahead_QMK.sum(axis=(1, 2)), np.inf)

    def main(self, ranks_Q: Vector) -> float:
        """Main metric in percent."""
        return 100 * float((ranks_Q <= self.cut).mean())

    def mrr(self, ranks_Q: Vector) -> float:
        """Mean of 1 / rank in percent; ranks beyond the depth of the lists count as none."""
        return 100 * float(np.where(ranks_Q <= self.lists.rows_QMK.shape[2], 1 / ranks_Q, 0.0).mean())

    def accuracy(self, offsets_M: Vector) -> float:
        """First results that have the modality wanted, in percent."""
        shifted_QM = self.lists.shifted(offsets_M[None])[:, :, 0]
        first_Q = np.lexsort((self.lists.rows_QMK[:, :, 0], -shifted_QM), axis=1)[:, 0]
        return 100 * float((first_Q == self.wanted_Q).mean())


def best_offsets(settings: Sequence[JudgedLists], modalities: Sequence[int], grid: Sequence[float]) -> Vector:
    """Coordinate search from zero: modality after modality takes the best offset of the grid, until a whole pass changes nothing.

    The best has the highest main metric, mean over settings; where several share it, the highest MRR, then the smallest sum of
    absolute offsets, then the lowest offset. Every step is better by that order, so the search ends.

    Args:
        settings: of queries that share the offsets; settings count alike.
        modalities: those in the pool; the others keep 0.
        grid: offsets to try.

    Returns:
        Shape (M,).
    """
    offsets_M = np.zeros(settings[0].right_QM.shape[1])
    rank = _order(settings, offsets_M)
    while True:
        before = rank
        for modality in modalities:
            for value in grid:
                trial_M = offsets_M.copy()
                trial_M[modality] = value
                found = _order(settings, trial_M)
                if found < rank:
                    offsets_M, rank = trial_M, found
        if rank == before:
            return offsets_M


def _order(settings: Sequence[JudgedLists], offsets_M: Vector) -> tuple[float, ...]:
    """Smaller is better. Scores are compared to nine digits, so that the order of a sum does not decide."""
    ranks = [(one, one.ranks(offsets_M)) for one in settings]
    main, mrr = (float(np.mean([score(one, ranks_Q) for one, ranks_Q in ranks])) for score in (JudgedLists.main, JudgedLists.mrr))
    return -round(main, 9), -round(mrr, 9), round(float(np.abs(offsets_M).sum()), 9), *offsets_M.tolist()
