"""A reranker that workers can load; apart from the models, whose workers then need no torch."""

from __future__ import annotations

from dataclasses import dataclass

from umr.mining.fill import PairScorer
from unit.bag_reranker import BagReranker


@dataclass(frozen=True)
class Judge:
    """Loads a `BagReranker`."""

    name: str = "bag"

    def __call__(self, device: str | None = None) -> PairScorer:
        return BagReranker(self.name)
