"""Intervals over seeds and over queries, and paired significance over queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DRAWS = 10_000
SEED = 0
_AT_A_TIME = 250


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        half_width: of its 95 % interval; `None` for a single seed, which says nothing about its own spread.
        values: by seed.
    """

    mean: float
    half_width: float | None
    values: tuple[float, ...]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval by Student's t: mean ± t(0.975, n - 1) s / sqrt(n)."""
    from scipy import stats

    given = np.asarray(values, np.float64)
    if len(given) < 2:
        return Estimate(float(given.mean()), None, tuple(values))
    half = stats.t.ppf(0.975, len(given) - 1) * given.std(ddof=1) / np.sqrt(len(given))
    return Estimate(float(given.mean()), float(half), tuple(values))


def sign_flip(differences: Sequence[npt.NDArray[np.floating]], draws: int = DRAWS, seed: int = SEED) -> float:
    """Two-sided p-value of a paired permutation test.

    The statistic is the difference of two averages as they are reported: each group (a setting in a run) counts alike, whatever
    its number of queries. Under the null hypothesis the sign of each query's difference is a coin toss. It speaks about queries:
    whether other training runs would differ likewise is what the interval over seeds says.

    Args:
        differences: for each group, the difference of the two variants' hits on each query.
        draws: of the signs.
        seed: of the draws; equal arguments give an equal value.

    Returns:
        (1 + number of draws at least as large as what was observed) / (1 + draws).
    """
    weighted = np.concatenate([np.asarray(group, np.float64) / (len(group) * len(differences)) for group in differences])
    observed, moved = abs(weighted.sum()), weighted[weighted != 0]
    rng = np.random.default_rng(seed)
    reached = 0
    for start in range(0, draws, _AT_A_TIME):
        signs = rng.integers(0, 2, (min(_AT_A_TIME, draws - start), len(moved)), dtype=np.int8) * 2 - 1
        reached += int((np.abs(signs @ moved) >= observed - 1e-12).sum())
    return (1 + reached) / (1 + draws)


def bootstrap(groups: Sequence[npt.NDArray[np.floating]], draws: int = DRAWS, seed: int = SEED) -> tuple[float, float]:
    """95 % interval of an average over groups, which count alike: percentiles over resampled queries (Efron, 1979).

    Each group (a setting) is drawn from with replacement, as many queries as it has. A resampled mean depends on how often each
    distinct value is drawn alone, and these counts are multinomial: they are what is drawn.

    Args:
        groups: for each, a value for each of its queries.
        draws: of the queries.
        seed: of the draws; equal arguments give an equal interval.

    Returns:
        Its lower and its upper end.
    """
    rng = np.random.default_rng(seed)
    means = np.zeros(draws)
    for group in groups:
        values, counts = np.unique(np.asarray(group, np.float64), return_counts=True)
        for start in range(0, draws, _AT_A_TIME):
            drawn = rng.multinomial(len(group), counts / len(group), min(_AT_A_TIME, draws - start))
            means[start : start + len(drawn)] += drawn @ values / len(group) / len(groups)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several tests, raised so that all of them together may be read at one level (Holm, 1979)."""
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(np.asarray(values, np.float64)[order] * np.arange(len(values), 0, -1))
    found = np.empty(len(values))
    found[order] = np.minimum(raised, 1.0)
    return [float(value) for value in found]
