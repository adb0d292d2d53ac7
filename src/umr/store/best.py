"""The best results so far of some queries, kept as integers that order as the results do.

An entry orders first by score, then by lower number: the score's bits, turned so that they compare as integers do, above
the complement of the candidate's number (below 2**32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Keys: TypeAlias = npt.NDArray[np.int64]
Scores: TypeAlias = npt.NDArray[np.float32]
Numbers: TypeAlias = npt.NDArray[Any]

PIECE = 256  # entries a query that are put in at a time; bounds what `hits` and `insert` allocate
_LOW = np.int64(0xFFFFFFFF)


def keys_of(scores: Scores, numbers: Numbers) -> Keys:
    """Entries of any shape."""
    bits = (scores + np.float32(0)).view(np.int32)  # the sum turns -0 into +0, which must compare equal
    return np.asarray((np.asarray(bits ^ ((bits >> 31) & 0x7FFFFFFF), np.int64) << 32) | (_LOW - numbers.astype(np.int64)))


def scores_of(keys: Keys) -> Scores:
    """Scores of entries."""
    bits = (keys >> 32).astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


def numbers_of(keys: Keys) -> npt.NDArray[np.uint32]:
    """Candidates of entries."""
    return (_LOW - (keys & _LOW)).astype(np.uint32)


NOTHING = keys_of(np.array([-np.inf], np.float32), np.array([_LOW]))[0]
"""The entry of a list that is not full yet; below every other."""


def nothing(queries: int, depth: int) -> Keys:
    """Empty lists, shape (queries, depth)."""
    return np.full((queries, depth), NOTHING)


def worst(best_QM: Keys) -> Scores:
    """The lowest score in each list, minus infinity where it is not full. Shape (Q, 1)."""
    return scores_of(best_QM.min(axis=1, keepdims=True))


def merge(best_QM: Keys, scores_QB: Scores, numbers_B: Numbers) -> None:
    """Put what belongs to the best so far into `best_QM`, in place; the candidates are not there yet."""
    for queries_H, columns_H in hits(scores_QB, lambda: worst(best_QM)):
        insert(best_QM, queries_H, keys_of(scores_QB[queries_H, columns_H], numbers_B[columns_H]))


def hits(scores_QB: Scores, least: Callable[[], Scores]) -> Iterator[tuple[Numbers, Numbers]]:
    """Rows and columns of the scores that reach `least()`, shape (Q, 1), which is asked again for every piece.

    A piece is as many columns as keep what `insert` allocates small: few at the beginning of a scan, where everything is among the
    best so far, all of them after the first blocks. Rows ascend within a piece.
    """
    width = scores_QB.shape[1]
    spans = [(0, width)]
    while spans:
        start, stop = spans.pop()
        some_QB = scores_QB[:, start:stop]
        reached_QB = some_QB >= least()
        if not (count := np.count_nonzero(reached_QB)):
            continue
        most = len(some_QB) * PIECE
        queries_H = columns_H = np.empty(0, np.int64)
        if count <= most:
            queries_H, columns_H = np.divmod(np.flatnonzero(reached_QB), stop - start)
        if stop - start > PIECE and (count > most or _padded(queries_H) > most):
            middle = (start + stop) // 2
            spans += [(middle, stop), (start, middle)]
        else:
            yield queries_H, columns_H + start


def _padded(queries_H: Numbers) -> int:
    _, count = np.unique(queries_H, return_counts=True)
    return len(count) * int(count.max())


def insert(best_QM: Keys, queries_H: Numbers, keys_H: Keys) -> None:
    """Put entries into the lists of their queries, in place.

    Args:
        best_QM: lists in any order.
        queries_H: ascending rows of `best_QM`.
        keys_H: their entries.
    """
    depth = best_QM.shape[1]
    live, begin, count = np.unique(queries_H, return_index=True, return_counts=True)
    keys_LW = np.full((len(live), count.max()), NOTHING)
    place = np.arange(len(queries_H)) - np.repeat(begin, count)
    keys_LW[np.repeat(np.arange(len(live)), count), place] = keys_H
    both = np.concatenate([best_QM[live], keys_LW], axis=1)
    best_QM[live] = np.partition(both, -depth, axis=1)[:, -depth:]
