"""How far two engines' vectors are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from umr.engines.answers import Answers
from umr.engines.golden import Golden

TOP = 5
"""Results of each query whose overlap is counted."""


@dataclass(frozen=True)
class Bounds:
    """How far an engine may be from the reference.

    Attributes:
        difference: largest absolute difference of a component that passes.
        cosine: least cosine that passes. In few components the first bound is the stricter one, in thousands this.
    """

    difference: float
    cosine: float


@dataclass
class Comparison:
    """An engine beside the reference.

    Attributes:
        engine: its name.
        about: what is known of it.
        problem: why nothing could be compared, or what is wrong with its vectors as a whole; None when they could be.
        cosines: of the engine's vector with the reference's, by row.
        differences: the largest absolute difference of a component, by row.
        overlap: share of the reference's first `TOP` candidates that are among the engine's first `TOP`, mean over queries; None
            without queries, or with too few candidates.
        left_out: why the engine has no vector for a row that the reference has one for.
        bounds: of what passes.
    """

    engine: str
    about: dict[str, str]
    bounds: Bounds
    problem: str | None = None
    cosines: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    overlap: float | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Something was compared, and every row is within the bounds."""
        near = self.differences and max(self.differences.values()) <= self.bounds.difference
        return self.problem is None and bool(near) and min(self.cosines.values()) >= self.bounds.cosine

    @property
    def worst(self) -> str:
        """The row that differs most."""
        return max(self.differences, key=self.differences.__getitem__)


def compare(rows: Sequence[Golden], reference: Answers, engine: str, about: dict[str, str], answers: Answers, bounds: Bounds) -> Comparison:
    """Compare the rows that both have vectors for; vectors are taken as they come, so their lengths count.

    Args:
        rows: what was asked.
        reference: what is held to be right.
        engine: name of the other.
        about: what is known of it.
        answers: of the other.
        bounds: of what passes.
    """
    kept = [row for row in rows if row.name in reference.vectors and row.name in answers.vectors]
    left_out = {name: reason for name, reason in answers.left_out.items() if name in reference.vectors}
    found = Comparison(engine, about, bounds, left_out=left_out)
    if not kept:
        found.problem = "nothing could be compared"
        return found
    ours, theirs = ([side.vectors[row.name] for row in kept] for side in (reference, answers))
    lengths = sorted({len(vector) for vector in theirs})
    if lengths != [len(ours[0])]:
        found.problem = f"its vectors have {', '.join(map(str, lengths))} components, those of the reference {len(ours[0])}"
        return found
    a_ND, b_ND = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if not np.isfinite(b_ND).all():
        found.problem = "its vectors hold values that are not numbers"
        return found
    norms_N = np.linalg.norm(a_ND, axis=1) * np.linalg.norm(b_ND, axis=1)
    cosines_N = (a_ND * b_ND).sum(1) / np.maximum(norms_N, np.finfo(np.float64).tiny)
    names = [row.name for row in kept]
    found.cosines = dict(zip(names, cosines_N.tolist(), strict=True))
    found.differences = dict(zip(names, np.abs(a_ND - b_ND).max(1).tolist(), strict=True))
    found.overlap = _overlap([row.side == "query" for row in kept], a_ND, b_ND)
    return found


def _overlap(is_query_N: list[bool], a_ND: np.ndarray, b_ND: np.ndarray) -> float | None:
    queries, candidates = np.flatnonzero(is_query_N), np.flatnonzero(~np.asarray(is_query_N))
    if not len(queries) or len(candidates) <= TOP:
        return None
    first, second = (np.argsort(-(x_ND[queries] @ x_ND[candidates].T), axis=1, kind="stable")[:, :TOP] for x_ND in (a_ND, b_ND))
    return float(np.mean([len(set(one) & set(other)) / TOP for one, other in zip(first.tolist(), second.tolist(), strict=True)]))
