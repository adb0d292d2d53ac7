"""What the settings mean for the queries of one setting: limits as arrays over the modalities of candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from umr.data.benchmark import Pool
from umr.errors import RecipeError
from umr.mining.limits import ARROW, MODALITIES, RANGES, limit_for, pairs_of
from umr.mining.queries import Group
from umr.mining.settings import MineSettings

PerModality = npt.NDArray[np.float32]
LAST = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Rules:
    """Filters for candidates of M modalities, in the order of `MODALITIES`.

    Attributes:
        min_rank: first rank that counts.
        max_rank: last one.
        similarity_M: limit of the cosine, nan for none.
        below_M: share of the positive's score by which a candidate must lie below it, nan where that filter is off.
        margin_M: distance by which it must, nan where that filter is off.
        allowed_M: whether there is a quota, or no quotas at all.
        target: code of the modality looked for where mining is modality-aware, else `None`.
        right_after_rank: candidates of that modality count only below this rank.
    """

    min_rank: int
    max_rank: int
    similarity_M: PerModality
    below_M: PerModality
    margin_M: PerModality
    allowed_M: npt.NDArray[np.bool_]
    target: int | None
    right_after_rank: int

    @classmethod
    def of(cls, settings: MineSettings, asking: str, target: str) -> Rules:
        """The rules for queries of modality `asking` that look for `target`.

        In modality-aware mining, filters on scores let candidates of another modality pass: all those above the positive would
        fail them, and what has the wrong modality is no unmarked right answer.
        """
        aware = settings.modality_aware
        judged = [target] if aware is not None else MODALITIES

        def over_modalities(name: str) -> list[float]:
            limits = (limit_for(getattr(settings, name), asking, modality) if modality in judged else None for modality in MODALITIES)
            return [np.nan if limit is None else limit for limit in limits]

        return cls(
            min_rank=settings.min_rank,
            max_rank=LAST if settings.max_rank is None else settings.max_rank,
            similarity_M=np.array(over_modalities("max_similarity"), np.float32),
            below_M=(1 - np.array(over_modalities("max_relative"))).astype(np.float32),
            margin_M=np.array(over_modalities("margin"), np.float32),
            allowed_M=np.array([settings.quotas is None or modality in settings.quotas for modality in MODALITIES]),
            target=None if aware is None else MODALITIES.index(target),
            right_after_rank=0 if aware is None or aware.right_after_rank is None else aware.right_after_rank,
        )


def check_effect(settings: MineSettings, groups: list[Group], pool: Pool) -> None:
    """Refuse what the data leaves without effect. Reads as few candidates as answer the question; all of them only before it refuses.

    Raises:
        RecipeError: a limit for a pair of modalities that does not occur, a quota for a modality that the pool does not have,
            or C1 from a pool of one modality.
    """
    searched = {(group.asking, group.target) for group in groups}
    asked = {asking for asking, _ in searched}
    several = settings.modality_aware is not None and settings.modality_aware.wrong_modality_share > 0
    wanted = set(settings.quotas or ())
    for name in RANGES:
        for asking, modality in pairs_of(getattr(settings, name)):
            pair = f"{name}: {asking}{ARROW}{modality}"
            if asking not in asked:
                raise RecipeError(f"{pair} has no effect: no query mined for is of modality {asking}; leave it out")
            if (settings.modality_aware is not None or "global" not in settings.pools) and (asking, modality) not in searched:
                why = (
                    "local pools have only the modality looked for" if settings.modality_aware is None else "modality_aware filters only it"
                )
                raise RecipeError(f"{pair} has no effect: no query of modality {asking} looks for {modality}, and {why}; leave it out")
            wanted.add(modality)
    there = _modalities(pool, wanted, 2 if several else 0)
    if missing := sorted(wanted - there):
        raise RecipeError(f"{pool.path}: has no candidate of modality {missing[0]}, so its limit or quota has no effect; leave it out")
    if several and len(there) < 2:
        raise RecipeError(f"{pool.path}: all candidates are of one modality; modality_aware needs others, or wrong_modality_share 0")


def _modalities(pool: Pool, wanted: set[str], at_least: int) -> set[str]:
    """Modalities of the pool, until those wanted and so many are found. The order is drawn: a pool's file often is in runs of one."""
    found: set[str] = set()
    for row in walk(len(pool), 0x9E3779B97F4A7C15):
        if wanted <= found and len(found) >= at_least:
            break
        found.add(pool.modality(pool.ids[row]))
    return found


def walk(count: int, seed: int) -> Iterator[int]:
    """All of `range(count)`, each once, in an order drawn by a 64-bit seed: a start, and a step without common divisor with the count."""
    if not count:
        return
    start, step = seed % count, max(1, (seed >> 32) % count)
    while gcd(step, count) > 1:
        step += 1
    for turn in range(count):
        yield (start + turn * step) % count
