"""Models as a server holds them: the engines of `Embedder` and `Reranker`, whose batches are shared by all requests.

Both are also what a collection asks for, an encoder and a reranker that are called in any thread; so searches of several callers
are computed together with everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from umr.errors import ModelError
from umr.items import Item, Query, QueryText, Side
from umr.models import batching
from umr.models.embedder import Embedder
from umr.models.reranker import Reranker, Scores, sigmoid
from umr.models.shorter import shorten
from umr.rendering.pairs import Pair
from umr.rendering.vision import VisionBlock
from umr.serving.errors import RequestError
from umr.serving.runtime import Computed, Prepare, Runtime, chunks_of
from umr.serving.worker import Lane

Vectors = npt.NDArray[np.float32]


class ServedEmbedder:
    """An embedder that many callers share. It is an `Encoder`.

    Args:
        name: what callers call it.
        embedder: the model.
        runtime: the server's threads.
        shorter: lengths to which its vectors may be cut besides those that its folder says it was trained for (Matryoshka).
        path: where the model was loaded from, for collections that are made with it.

    Raises:
        ModelError: a length that is not below the model's own, or that it has anyway.
    """

    def __init__(self, name: str, embedder: Embedder, runtime: Runtime, shorter: Sequence[int] = (), path: str = "") -> None:
        self.name, self.embedder, self.path = name, embedder, path or name
        self._runtime = runtime
        if wrong := [length for length in shorter if not 1 <= length < embedder.dimension]:
            raise ModelError(f"{name}: cannot shorten vectors of {embedder.dimension} components to {wrong[0]}")
        if known := [length for length in shorter if length in embedder.dimensions]:
            raise ModelError(f"{name}: its folder says that it was trained for {known[0]} components; leave --dimensions {known[0]} out")
        self.lengths = tuple(sorted({*shorter, *embedder.dimensions}))
        self._lane = Lane(name, embedder.engine.cost, embedder.engine.forward, _budget(embedder))

    @property
    def engine(self) -> Any:
        """The model's, for what can be read from it; whoever computes goes through `encode`."""
        return self.embedder.engine

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.embedder.dimension

    @property
    def fingerprint(self) -> str:
        """The model's."""
        return self.embedder.fingerprint

    @property
    def query_text(self) -> QueryText:
        """How this model wants queries that have an instruction to be cleaned."""
        return self.embedder.query_text

    async def embed(self, items: Sequence[Item], side: Side, instruction: str | None, length: int | None = None) -> Computed:
        """Vectors of items, (N, length or D), equal to those of `Embedder.encode`.

        Args:
            items: at least one.
            side: of the search.
            instruction: for queries; None for none.
            length: keep this many components, scaled to unit length again; None for all.

        Raises:
            RequestError: 400, the model has no vectors of this length.
            UmrError: an item cannot be embedded.
        """
        if length is not None and length not in self.lengths:
            can = ", ".join(map(str, self.lengths))
            raise RequestError(400, f"model {self.name} has no vectors of {length} components; it has {can}", "unsupported_dimensions")
        done = await self._runtime.compute(self._lane, self._chunks(items, side, [instruction] * len(items)))
        return Computed(done.values_ND if length is None else shorten(done.values_ND, length), done.tokens)

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        """`Encoder.encode`, for threads other than the event loop's."""
        items = list(items)
        instructions = [instruction] * len(items) if instruction is None or isinstance(instruction, str) else list(instruction)
        if len(instructions) != len(items):
            raise ModelError(f"{len(instructions)} instructions for {len(items)} items; give one, or one for each")
        if not items:
            return np.zeros((0, self.dimension), np.float32)
        return self._runtime.compute_here(self._lane, self._chunks(items, side, instructions)).values_ND

    def _chunks(self, items: Sequence[Item], side: Side, instructions: list[str | None]) -> Iterator[Prepare]:
        for part in chunks_of(items):
            yield partial(self.embedder.engine.prepare, items[part], side, instructions[part])


class ServedReranker:
    """A reranker that many callers share.

    Args:
        name: what callers call it.
        reranker: the model.
        runtime: the server's threads.
    """

    def __init__(self, name: str, reranker: Reranker, runtime: Runtime) -> None:
        self.name, self.reranker = name, reranker
        self._runtime = runtime
        self._lane = Lane(name, reranker.engine.cost, reranker.engine.forward, _budget(reranker))

    @property
    def fingerprint(self) -> str:
        """The model's."""
        return self.reranker.fingerprint

    async def rerank(self, query: Item, instruction: str | None, candidates: Sequence[Item]) -> Computed:
        """P(Yes) of each candidate, (N,), equal to that of `Reranker.score`.

        Raises:
            UmrError: a pair cannot be rendered.
        """
        pairs = [Pair(query, instruction, candidate) for candidate in candidates]
        done = await self._runtime.compute(self._lane, self._chunks(pairs))
        return Computed(sigmoid(self.reranker.engine.log_odds(done.values_ND)), done.tokens)

    def score_pairs(self, pairs: Sequence[Pair]) -> Scores:
        """`Reranker.score_pairs`, for threads other than the event loop's."""
        if not pairs:
            return np.zeros(0, np.float32)
        return sigmoid(self.reranker.engine.log_odds(self._runtime.compute_here(self._lane, self._chunks(list(pairs))).values_ND))

    def score(self, query: Item | Query, items: Sequence[Item], instruction: str | None = None) -> Scores:
        """`Reranker.score`, for threads other than the event loop's."""
        item, own = (query.item, query.instruction) if isinstance(query, Query) else (query, instruction)
        return self.score_pairs([Pair(item, own, candidate) for candidate in items])

    def _chunks(self, pairs: list[Pair]) -> Iterator[Prepare]:
        done: dict[str, VisionBlock] = {}  # media of this request, read once; its chunks are prepared one after the other
        for part in chunks_of([pair.candidate for pair in pairs]):
            yield partial(self.reranker.engine.prepare, pairs[part], done)


def _budget(model: Embedder | Reranker) -> int:
    engine: Any = model.engine
    return model.batch_tokens or batching.default_budget(next(engine.model.parameters()).device.type)
