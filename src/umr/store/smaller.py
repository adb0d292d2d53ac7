"""Search in vectors of which less is kept: fewer dimensions, fewer bits.

It has two steps. The first goes through all candidates as they are kept: those in fp16 and int8 are compared with the query by inner
product, signs by Hamming distance. The second puts the best `RESCORED` of these in order: by what the codes stand for, or by the whole
vectors in fp16, which may lie on a disk, since few are read. Queries are never quantised but for the Hamming distance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from umr.models.shorter import shorten
from umr.progress import Bar
from umr.protocols import Vectors
from umr.store.asked import Among, Places
from umr.store.best import Scores
from umr.store.quantiser import Quantiser
from umr.store.rescoring import Listed, rank, score_listed
from umr.store.rows import Rows
from umr.store.topk import exact_topk

RESCORED = 100
"""Results of the first step that the second one puts in order, or as many as are wanted."""
_CHUNK = 64 << 20  # bytes that the second step works on at a time
_LEAST = 16
_HALVINGS = 4


def dimensions_of(full: int, trained: Sequence[int] = ()) -> list[int]:
    """The full dimension and its halves, at most four and none below 16; besides, those that a model was trained for. Longest first."""
    halves = (full >> step for step in range(1, _HALVINGS + 1) if full >> step >= _LEAST)
    return sorted({full, *halves, *(one for one in trained if one < full)}, reverse=True)


class Mapped:
    """Rows that a function makes of other rows.

    Args:
        rows: the others.
        dimension: of what the function gives.
        function: from some rows to as many.
    """

    def __init__(self, rows: Rows, dimension: int, function: Callable[[Any], Vectors]) -> None:
        self._rows, self._dimension, self._function = rows, dimension, function

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def read(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop`: float32, shape (n, dimension)."""
        return self._function(self._rows.read(start, stop))

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The given rows: float32, shape (len(rows), dimension)."""
        return self._function(self._rows.take(rows))

    def release(self) -> None:
        """Let go of what the others hold."""
        self._rows.release()


@dataclass(frozen=True)
class Small:
    """Candidates of which less is kept.

    Attributes:
        kept: what they are read back as.
        scanned: what the first step goes through: the same, or signs as numbers.
        quantiser: of their codes; `None` for fp16.
    """

    kept: Rows
    scanned: Rows
    quantiser: Quantiser | None


def smaller(rows: Rows, dimension: int, quantiser: Quantiser | None) -> Small:
    """Whole vectors as if less of each had been kept.

    Args:
        rows: the whole ones.
        dimension: leading components kept.
        quantiser: of that dimension; `None` keeps them in fp16.
    """
    if quantiser is None:
        kept = Mapped(rows, dimension, lambda vectors_ND: shorten(vectors_ND, dimension))
        return Small(kept, kept, None)
    kept = Mapped(rows, dimension, lambda vectors_ND: quantiser.vectors(quantiser.codes(vectors_ND)))
    if quantiser.precision == "int8":
        return Small(kept, kept, quantiser)
    return Small(kept, Mapped(rows, dimension, lambda vectors_ND: quantiser.units(quantiser.codes(vectors_ND))), quantiser)


def first_step(queries_QD: Vectors, small: Small, depth: int, bar: Bar | None = None) -> Places:
    """Rows that the second step puts in order, best first; of equally good ones the lower first. Shape (Q, min(R, N)).

    Args:
        queries_QD: unit vectors, whole.
        small: candidates.
        depth: results wanted in the end.
        bar: advanced by the number of candidates seen.
    """
    asked_QD, quantiser = shorten(queries_QD, small.kept.dimension), small.quantiser
    if quantiser is not None and quantiser.precision == "binary":
        asked_QD = quantiser.units(quantiser.codes(asked_QD))
    return exact_topk(asked_QD, small.scanned, max(RESCORED, depth), bar=bar)[0]


def second_step(queries_QD: Vectors, found_QR: Places, source: Rows, k: int) -> tuple[Places, Scores]:
    """The k best of what was found.

    Args:
        queries_QD: unit vectors, whole.
        found_QR: from `first_step`.
        source: what to order them by: the candidates as they are kept, or the whole ones.
        k: results a query.

    Returns:
        Row numbers and inner products, both of shape (Q, min(k, R)), as `exact_topk` gives them.
    """
    places = found_QR.astype(np.uint32)
    (scores_QR,) = score_listed(shorten(queries_QD, source.dimension), source, [Listed(0, places)], _CHUNK)
    return rank(places, scores_QR, Among.run(0, len(source)), k)
