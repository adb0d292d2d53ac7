"""Why a search over a mixed pool fails: what kind of candidate comes first, and UniIR's three types of error.

A query wants one modality, that of its task; a mixed pool offers all. Everything here is a function of a ranking and of arrays
that say, row by row, what the pool's candidates are. A modality is a small number, its place in `MODALITIES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umr.evaluation.metrics import Scores

Codes = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]

Modality: TypeAlias = Literal["text", "image", "image,text", "video"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "image,text", "video")
"""Every modality of a benchmark in M-BEIR's layout."""
ACCURACY_AT = (1, 5, 10)
OUTCOMES = ("right", "type1", "type2", "type3")
"""What the first result of a query can be; see `outcomes`."""


def codes_of(modalities: Sequence[str] | pa.ChunkedArray) -> Codes:
    """Places in `MODALITIES`, shape (N,). Raises `ValueError` for a modality that is not there."""
    column = modalities if isinstance(modalities, pa.ChunkedArray) else pa.array(modalities, pa.string())
    found = pc.index_in(column, pa.array(MODALITIES))
    if found.null_count:
        raise ValueError("a modality is none of " + ", ".join(MODALITIES))
    return np.asarray(found, np.int8)


def accuracy_at(found_QK: Codes, wanted_Q: Codes, k: int) -> Scores:
    """Share of the first `k` results that have the modality wanted, one value a query. Shape (Q,).

    At 1 its mean over queries is MM-Embed's modality accuracy (arXiv 2411.02571). Where there are fewer than `k` results, all
    of them are looked at.

    Args:
        found_QK: modality of each result, best first.
        wanted_Q: modality that each query looks for.
        k: results looked at.
    """
    return np.asarray((found_QK[:, :k] == wanted_Q[:, None]).mean(axis=1), np.float64)


def confusion(asked_Q: Codes, found_Q: Codes) -> npt.NDArray[np.int64]:
    """How many queries of each modality (rows) have a first result of each modality (columns): shape (M, M)."""
    size = len(MODALITIES)
    cells_Q = asked_Q.astype(np.int64) * size + found_Q
    return np.bincount(cells_Q, minlength=size * size).reshape(size, size)


def outcomes(right_Q: Flags, modality_Q: Flags, domain_Q: Flags) -> Codes:
    """What the first result of each query is, as a place in `OUTCOMES`. Shape (Q,).

    UniIR's types of error (Wei et al., ECCV 2024): of a first result that is no positive, type 1 has the wrong modality, else type
    2 comes from the wrong domain, else it is type 3. A positive is right whatever its modality.

    Args:
        right_Q: whether the first result is a positive.
        modality_Q: whether it has the modality wanted.
        domain_Q: whether it comes from the query's domain.
    """
    return np.select([right_Q, ~modality_Q, ~domain_Q], [0, 1, 2], 3).astype(np.int8)


@dataclass(frozen=True)
class Diagnosis:
    """What comes first in a mixed pool, for the queries of one setting or of several.

    Attributes:
        matrix: queries by the query's modality and that of its first result; without modalities that no query has.
        shares: the same in percent of the row.
        errors: queries by outcome; see `outcomes`.
    """

    matrix: dict[str, dict[str, int]]
    shares: dict[str, dict[str, float]]
    errors: dict[str, int]

    @classmethod
    def of(cls, asked_Q: Codes, found_Q: Codes, outcomes_Q: Codes) -> Diagnosis:
        """Count.

        Args:
            asked_Q: modality of each query.
            found_Q: modality of its first result.
            outcomes_Q: as `outcomes` gives them.
        """
        counts_MM = confusion(asked_Q, found_Q)
        matrix: dict[str, dict[str, int]] = {
            name: dict(zip(MODALITIES, map(int, row), strict=True)) for name, row in zip(MODALITIES, counts_MM, strict=True) if row.any()
        }
        errors = np.bincount(outcomes_Q, minlength=len(OUTCOMES))
        return cls(matrix, _shares(matrix), dict(zip(OUTCOMES, map(int, errors), strict=True)))

    @classmethod
    def sum(cls, several: Iterable[Diagnosis]) -> Diagnosis:
        """Of all queries together."""
        parts = list(several)
        asked = [name for name in MODALITIES if any(name in one.matrix for one in parts)]
        matrix: dict[str, dict[str, int]] = {}
        for name in asked:
            matrix[name] = {found: sum(one.matrix.get(name, {}).get(found, 0) for one in parts) for found in MODALITIES}
        return cls(matrix, _shares(matrix), {name: sum(one.errors[name] for one in parts) for name in OUTCOMES})


def _shares(matrix: dict[str, dict[str, int]]) -> dict[str, dict[str, float]]:
    return {name: {found: 100 * count / sum(row.values()) for found, count in row.items()} for name, row in matrix.items()}


def short(task: str) -> str:
    """A task or a modality in letters: `"image,text -> image"` as `"it -> i"`."""
    return " -> ".join("".join(kind[0] for kind in side.split(",")) for side in task.split(" -> "))
