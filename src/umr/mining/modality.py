"""Negatives by modality: the two sets of modality-aware mining and the draw between them, and quotas."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from umr.mining.filters import KEPT, NONE, OPEN, Check, Codes, mixed, not_drawn, take
from umr.mining.limits import MODALITIES
from umr.mining.rules import Rules

SET_NAMES = {0: "", 1: "C1", 2: "C2", 3: "fallback"}
NO_SET, C1, C2, FALLBACK = SET_NAMES
_SALT = np.uint64(0xC1C2C1C2C1C2C1C2)  # so that the draw of the set has nothing to do with the draw of the candidate


def sets_of(codes_QW: Codes, modalities_QW: Codes, rules: Rules) -> Codes:
    """Codes of `SET_NAMES`, (Q, W): what `judge` left open is in C1 or C2 by its modality; without modality-aware rules, in none."""
    if rules.target is None:
        return np.zeros_like(codes_QW)
    return np.where(codes_QW == OPEN, np.where(modalities_QW == rules.target, C2, C1), NO_SET).astype(np.uint8)


def draw_sets(hashes_Q: npt.NDArray[np.uint64], count: int, share: float) -> npt.NDArray[np.int64]:
    """How many of `count` negatives a query are to come from C1, each with the probability `share`, seeded by the hashes: (Q,)."""
    slots_S = mixed(np.arange(count, dtype=np.uint64) ^ _SALT)
    draws_QS = mixed(hashes_Q[:, None] ^ slots_S) / np.float64(2**64)
    return np.asarray((draws_QS < share).sum(axis=1), np.int64)


def choose_from_sets(
    codes_QW: Codes, sets_QW: Codes, order_QW: npt.NDArray[np.int64], from_c1_Q: npt.NDArray[np.int64], count: int, check: Check
) -> Codes:
    """Take `from_c1_Q` negatives from C1 and the others of `count` from C2; where one set has too few, the other one gives more.

    Args:
        codes_QW: from `judge`.
        sets_QW: from `sets_of`.
        order_QW: from `preference`; within a set it decides.
        from_c1_Q: from `draw_sets`.
        count: of negatives a query.
        check: decides about single candidates.

    Returns:
        Codes without `OPEN`. A query has fewer than `count` `KEPT` only where both sets are used up.
    """
    for which, count_Q in ((C1, from_c1_Q), (C2, count - from_c1_Q)):
        codes_QW = take(codes_QW, sets_QW == which, order_QW, count_Q, check)
    for which in (C1, C2):
        codes_QW = take(codes_QW, sets_QW == which, order_QW, count - (codes_QW == KEPT).sum(axis=1), check)
    return not_drawn(codes_QW)


def choose_by_quota(
    codes_QW: Codes, modalities_QW: Codes, order_QW: npt.NDArray[np.int64], quotas: Mapping[str, int], check: Check
) -> Codes:
    """Take as many candidates of each modality as its quota says, or all there are.

    Args:
        codes_QW: from `judge`.
        modalities_QW: codes of `MODALITIES`.
        order_QW: from `preference`.
        quotas: negatives by modality.
        check: decides about single candidates.

    Returns:
        Codes without `OPEN`.
    """
    for modality, count in quotas.items():
        among_QW = (modalities_QW == MODALITIES.index(modality)) & (codes_QW != NONE)
        codes_QW = take(codes_QW, among_QW, order_QW, np.full(len(codes_QW), count), check)
    return not_drawn(codes_QW)
