"""A small real reranker for tests that need no neural network: P(Yes) from the overlap of bags of words and colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from umr.items import Item, Side
from umr.rendering.pairs import Pair
from unit.mbeir_fixture import BagEncoder


class BagReranker:
    """Scores with a `BagEncoder`, sharpened. Remembers the pairs it was asked about, and can fail at one of its calls."""

    def __init__(self, name: str = "bag", fail_at_call: int | None = None) -> None:
        self.fingerprint = f"bag-reranker-{name}"
        self.fail_at_call = fail_at_call
        self.asked: list[list[tuple[str, str]]] = []
        self.texts: set[str] = set()
        self.instructions: set[str | None] = set()
        self._encoder = BagEncoder()
        self._vectors: dict[tuple[Item, str], np.ndarray] = {}

    def score_pairs(self, pairs: Sequence[Pair]) -> np.ndarray:
        if self.fail_at_call is not None and len(self.asked) == self.fail_at_call:
            raise RuntimeError("stopped in the middle")
        self.asked.append([(pair.query.id, pair.candidate.id) for pair in pairs])
        self.texts |= {pair.query.text for pair in pairs}
        self.instructions |= {pair.instruction for pair in pairs}
        return np.array([self.one(pair) for pair in pairs], np.float32)

    def one(self, pair: Pair) -> float:
        query, candidate = self._vector(pair.query, "query"), self._vector(pair.candidate, "candidate")
        return float(1 / (1 + np.exp(-8 * (float(query @ candidate) - 0.6))))

    def _vector(self, item: Item, side: Side) -> np.ndarray:
        if (item, side) not in self._vectors:
            self._vectors[item, side] = self._encoder.encode([item], side)[0]
        return self._vectors[item, side]


class JudgeReranker:
    """Says what a function of (qid, did) says."""

    def __init__(self, judge: Callable[[str, str], float]) -> None:
        self.fingerprint = "judge"
        self._judge = judge

    def score_pairs(self, pairs: Sequence[Pair]) -> np.ndarray:
        return np.array([self._judge(str(pair.query.id), str(pair.candidate.id)) for pair in pairs], np.float32)
