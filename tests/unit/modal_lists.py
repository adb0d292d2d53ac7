"""Searches of one pool by modality, as evaluations ask for them among others."""

from __future__ import annotations

import numpy as np

from umr.evaluation.by_modality import Lists, by_modality
from umr.store import Among, ArrayRows, Asked, Streaming


def search_each(queries_QD: np.ndarray, pool: ArrayRows, modalities_N: np.ndarray, k: int) -> Lists:
    """The k best of each modality."""
    parts = by_modality(Among.run(0, len(pool)), modalities_N)
    (found,) = Streaming(pool, [Asked(ArrayRows(queries_QD), list(parts.values()), k)]).run()
    return Lists.of(dict(zip(parts, found, strict=True)), len(queries_QD), k, len(pool))


def topk_within(queries_QD: np.ndarray, pool: ArrayRows, modalities_N: np.ndarray, wanted: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of one modality."""
    part = Among.run(0, len(pool)).where(modalities_N == wanted)
    ((ranking,),) = Streaming(pool, [Asked(ArrayRows(queries_QD), [part], k)]).run()
    return ranking
