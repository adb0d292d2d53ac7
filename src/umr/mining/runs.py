"""Rankings of other systems, as TREC run files, read for a block of queries at a time."""

from __future__ import annotations

from array import array
from collections.abc import KeysView, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from umr.data.benchmark import Pool
from umr.errors import DataError
from umr.mining.filters import RUN, Lists

TOLERANCE = 1e-3
"""By how much a cosine may exceed 1: systems of half precision round."""


class RunFile:
    """A file of lines `qid Q0 did rank score tag`; the lines of a query stand together. May be larger than memory.

    The rank column decides the order (of one system a high score is good, of another a low one); ranks are counted anew from 1.

    Args:
        path: the file.
        metric: `"cosine"` where the scores are cosines; they are then checked to be.

    Raises:
        DataError: unreadable, no lines, a line without six columns, or a query whose lines do not stand together.
    """

    def __init__(self, path: Path, metric: Literal["cosine"] | None = None) -> None:
        self.path, self.metric = Path(path), metric
        self._of: dict[str, int] = {}
        starts, lines = array("q"), array("q")
        position, last = 0, None
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    cells = line.split()
                    if cells and len(cells) != 6:
                        raise DataError(f"{self.path}:{number}: needs 6 columns (qid Q0 did rank score tag), has {len(cells)}")
                    if cells and cells[0] != last:
                        qid, last = cells[0].decode("utf-8", "replace"), cells[0]
                        if qid in self._of:
                            raise DataError(f"{self.path}:{number}: query {qid!r} was there before; sort the file by query")
                        self._of[qid] = len(starts)
                        starts.append(position)
                        lines.append(number)
                    position += len(line)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from error
        if not self._of:
            raise DataError(f"{self.path}: has no lines")
        self._starts, self._lines = np.array([*starts, position], np.int64), np.array(lines, np.int64)

    @property
    def qids(self) -> KeysView[str]:
        """Queries in file order."""
        return self._of.keys()

    def lists(self, qids: Sequence[str], pool: Pool, own_Q: npt.NDArray[np.int64] | None = None) -> Lists:
        """The rankings of some queries; a query that the file does not have gets an empty one.

        Args:
            qids: Q queries.
            pool: what the candidates are of.
            own_Q: row that is the query itself (`umr.evaluation.own.own_rows`), which is left out of its ranking.

        Raises:
            DataError: a line that cannot be read, a candidate that is not in `pool` or occurs twice, or scores that are no cosines.
        """
        found = [self._ranking(qid, pool) for qid in qids]
        if own_Q is not None:
            found = [(rows[rows != own], scores[rows != own]) for (rows, scores), own in zip(found, own_Q, strict=True)]
        width = max((len(rows) for rows, _ in found), default=0)
        rows_QW = np.full((len(qids), width), -1, np.int64)
        scores_QW = np.zeros((len(qids), width), np.float32)
        for query, (rows, scores) in enumerate(found):
            rows_QW[query, : len(rows)], scores_QW[query, : len(rows)] = rows, scores
        return Lists.ranked(rows_QW, scores_QW, RUN)

    def _ranking(self, qid: str, pool: Pool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        place = self._of.get(qid)
        if place is None:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        with self.path.open("rb") as file:
            file.seek(self._starts[place])
            block = file.read(int(self._starts[place + 1] - self._starts[place]))
        cells = [line.split() for line in block.splitlines() if line.strip()]
        where = f"{self.path}:{self._lines[place]}: query {qid!r}"
        try:
            ranks, scores = np.array([int(row[3]) for row in cells]), np.array([float(row[4]) for row in cells], np.float32)
        except ValueError as error:
            raise DataError(f"{where}: rank and score must be numbers ({error})") from error
        dids = [row[2].decode("utf-8", "replace") for row in cells]
        rows, order = pool.find(dids), np.argsort(ranks, kind="stable")
        if (rows < 0).any():
            raise DataError(
                f"{where}: candidate {dids[int(np.argmin(rows))]!r} is not in {pool.path}; mine from runs over the training pool"
            )
        if len(np.unique(rows)) < len(rows):
            raise DataError(f"{where}: has a candidate twice")
        if not np.isfinite(scores).all():
            raise DataError(f"{where}: has a score that is not finite")
        if self.metric == "cosine" and ((np.abs(scores) > 1 + TOLERANCE).any() or (np.diff(scores[order]) > 0).any()):
            raise DataError(f"{where}: the scores are no cosines (outside -1 to 1, or rising with the rank); do not declare them as such")
        return rows[order], scores[order]
