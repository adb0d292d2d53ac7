"""Several rankings become one: reciprocal rank fusion, and lists of modalities with shifted scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum

from umr.search.table import Near

RANK_CONSTANT = 60
"""Added to every rank, so that the first places of one list do not decide alone; the value of the paper."""


def reciprocal_ranks(
    lists: Mapping[str, Sequence[Near]], weights: Mapping[str, float] | None = None, constant: int = RANK_CONSTANT
) -> list[Near]:
    """Merge rankings whose scores cannot be compared, by ranks alone.

    The score of a row is the sum over the lists that have it of `weight / (constant + rank)`, ranks from 1 (Cormack, Clarke and
    Büttcher: Reciprocal rank fusion outperforms Condorcet and individual rank learning methods, SIGIR 2009).

    Args:
        lists: rankings by name, best first, each row at most once in each.
        weights: of the lists, 0 or more; 1 for those not named.
        constant: see `RANK_CONSTANT`.

    Returns:
        Every row of any list of a weight above zero, best first, ties by id.
    """
    shares: dict[str, list[float]] = {}
    for name, found in lists.items():
        weight = 1.0 if weights is None else weights.get(name, 1.0)
        if weight > 0:
            for rank, near in enumerate(found, 1):
                shares.setdefault(near.id, []).append(weight / (constant + rank))
    # fsum is exact: the same ranks give the same score, in whatever lists they were reached, so that ties are ties
    return best_first(Near(id, fsum(parts)) for id, parts in shares.items())


def shifted(lists: Mapping[str, Sequence[Near]], offsets: Mapping[str, float]) -> list[Near]:
    """Merge the rankings of several modalities after adding a number to the scores of each.

    The number leaves the order within a modality as it is, so the first k of the result are right whenever every list holds the
    first k of its modality.

    Args:
        lists: rankings by the modality of their rows, best first; no row is in two.
        offsets: by modality; 0 for those not named.

    Returns:
        All rows, best first by shifted score, ties by id.
    """
    return best_first(Near(near.id, near.score + offsets.get(name, 0.0)) for name, found in lists.items() for near in found)


def best_first(found: Iterable[Near]) -> list[Near]:
    """Sorted by score, ties by id."""
    return sorted(found, key=lambda near: (-near.score, near.id))
