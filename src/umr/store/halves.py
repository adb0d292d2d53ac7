"""bfloat16 in the first scoring: more operations a second where the hardware has it, and how wrong it can be.

A vector rounded to bfloat16 loses a part of known length, and so a product of two rounded vectors is wrong by no more than these lengths
allow (`umr.store.rescoring.slack`). What is found is scored again in double precision, and what could be missing is looked for again, so
that results are the same with and without.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from umr.protocols import Vectors

ROUNDING = 2.0**-8
"""The largest relative error of a number that is rounded to bfloat16, which has eight significant bits."""
WORTH = 2**40
"""Multiplications of a search that rounding pays for, about ten seconds of a core."""
_GAIN = 1.2
_PIECE = 512
_CANDIDATES, _QUERIES, _DIMENSION = 4096, 256, 256


def rounded(vectors_ND: Vectors) -> Vectors:
    """The nearest vectors that bfloat16 can hold (ties to even), as float32. Entries are finite and below 3e38."""
    bits = np.ascontiguousarray(vectors_ND, np.float32).view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def lost(vectors_ND: Vectors) -> npt.NDArray[np.float64]:
    """Length of what rounding takes from each vector. Shape (N,)."""
    lengths_N = np.empty(len(vectors_ND))
    for start in range(0, len(vectors_ND), _PIECE):  # copies of a whole block would not be in the plan of memory
        some_PD = vectors_ND[start : start + _PIECE]
        away_PD = some_PD - rounded(some_PD)  # exact: what is taken away has fewer bits
        lengths_N[start : start + _PIECE] = np.sqrt(np.einsum("pd,pd->p", away_PD, away_PD, dtype=np.float64))
    return lengths_N


@cache
def quicker_here() -> bool:
    """Whether products in bfloat16 are quicker on this CPU, found by computing a few of each; needs torch to be loaded already.

    It takes some milliseconds, once. Which is chosen decides on time alone.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    numbers = np.random.default_rng(0)
    queries_QD = numbers.standard_normal((_QUERIES, _DIMENSION), np.float32)
    candidates_CD = numbers.standard_normal((_CANDIDATES, _DIMENSION), np.float32)
    halves = torch.from_numpy(queries_QD).bfloat16(), torch.from_numpy(candidates_CD).bfloat16()
    return _seconds(lambda: queries_QD @ candidates_CD.T) > _GAIN * _seconds(lambda: (halves[0] @ halves[1].T).float())


def _seconds(compute: Callable[[], object]) -> float:
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        compute()
        taken.append(time.perf_counter() - start)
    return min(taken)
