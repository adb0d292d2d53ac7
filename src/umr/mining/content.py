"""Whether a candidate is a positive under another id, and what a reranker says of it: the checks that look at candidates themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from umr.data.benchmark import Pool
from umr.items import Item
from umr.mining.fill import PAIRS_PER_CALL, PairScorer
from umr.mining.filters import BY_CONTENT, KEPT, RERANKER_AGREES, Codes
from umr.mining.queries import Group, Ragged
from umr.progress import progress
from umr.rendering.pairs import Pair


class Digests:
    """Content hashes of a pool's rows, each made once, when it is first asked for: 17 bytes a candidate.

    Only candidates that are about to be kept are asked for, and positives, so this reads at most the files that training
    reads. Every one of them is compared, however far its score is from the positive's: no bound has to be trusted.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._digests_N16 = np.zeros((len(pool), 16), np.uint8)
        self._known_N = np.zeros(len(pool), bool)

    def of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
        """Hashes to compare with each other, (len(rows),)."""
        for row in np.unique(rows[~self._known_N[rows]]):
            digest = bytes.fromhex(item_at(self._pool, int(row)).digest)
            self._digests_N16[row] = np.frombuffer(digest, np.uint8)
            self._known_N[row] = True
        return np.ascontiguousarray(self._digests_N16[rows]).view("V16").ravel()


class Checks:
    """The check that `umr.mining.filters.choose` makes of candidates, for one block.

    Args:
        group: the setting.
        start: first query of the block.
        rows_QW: rows of the candidates.
        right: rows of all positives of the block's queries, by id and by judgements.
        digests: of the pool.
        instructions: of the block's queries, for the reranker.
        reranker: asked after the content, if there is one.
        max_yes: its limit.

    Attributes:
        yes_QW: what the reranker said, nan where it was not asked.
    """

    def __init__(
        self,
        group: Group,
        start: int,
        rows_QW: npt.NDArray[np.int64],
        right: Sequence[Ragged],
        pool: Pool,
        digests: Digests,
        instructions: Sequence[str | None],
        reranker: PairScorer | None,
        max_yes: float | None,
    ) -> None:
        self._group, self._start, self._rows_QW, self._right = group, start, rows_QW, right
        self._pool, self._digests, self._instructions = pool, digests, instructions
        self._reranker, self._max_yes = reranker, max_yes
        self.yes_QW = np.full(rows_QW.shape, np.nan, np.float32)

    def __call__(self, queries_P: npt.NDArray[np.int64], places_P: npt.NDArray[np.int64]) -> Codes:
        """Codes of P candidates of the lists: `KEPT`, `BY_CONTENT` or `RERANKER_AGREES`."""
        codes_P, self.yes_QW[queries_P, places_P] = self.look(queries_P, self._rows_QW[queries_P, places_P])
        return codes_P

    def look(self, queries_P: npt.NDArray[np.int64], rows_P: npt.NDArray[np.int64]) -> tuple[Codes, npt.NDArray[np.float32]]:
        """Codes of any P candidates of the pool, as above, and what the reranker said of them, nan where it was not asked."""
        codes_P = np.where(self._same_content(queries_P, rows_P), BY_CONTENT, KEPT).astype(np.uint8)
        yes_P = np.full(len(rows_P), np.nan, np.float32)
        if self._reranker is not None and self._max_yes is not None:
            left = np.flatnonzero(codes_P == KEPT)
            yes_P[left] = self._ask(self._reranker, queries_P[left], rows_P[left])
            codes_P[yes_P > np.float32(self._max_yes)] = RERANKER_AGREES
        return codes_P, yes_P

    def _same_content(self, queries_P: npt.NDArray[np.int64], rows_P: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        found = zip(queries_P.tolist(), self._digests.of(rows_P).tolist(), strict=True)
        return np.fromiter((pair in self._right_contents for pair in found), bool, len(rows_P))

    @cached_property
    def _right_contents(self) -> set[tuple[int, bytes]]:
        """Query and content of every positive."""
        return {pair for right in self._right for pair in zip(right.owners.tolist(), self._digests.of(right.rows).tolist(), strict=True)}

    def _ask(self, reranker: PairScorer, queries_P: npt.NDArray[np.int64], rows_P: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        yes_P = np.zeros(len(rows_P), np.float32)
        with progress("reranking", len(rows_P), "pairs") as bar:
            for first in range(0, len(rows_P), PAIRS_PER_CALL):
                some = slice(first, first + PAIRS_PER_CALL)
                pairs = [self._pair(query, row) for query, row in zip(queries_P[some].tolist(), rows_P[some].tolist(), strict=True)]
                yes_P[some] = reranker.score_pairs(pairs)
                bar.advance(len(pairs))
        return yes_P

    def _pair(self, query: int, row: int) -> Pair:
        return Pair(self._group.query(self._start + query).item, self._instructions[query], item_at(self._pool, row))


def item_at(pool: Pool, row: int) -> Item:
    """The candidate of a row."""
    return next(pool.items(row, row + 1))
