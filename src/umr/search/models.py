"""The model behind a collection: loaded when it is first needed, checked against the stored vectors, called by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from umr.errors import RecipeError
from umr.search.cleaning import CleaningEncoder, CleaningReranker
from umr.search.settings import CollectionSettings

if TYPE_CHECKING:
    from umr.mining.fill import PairScorer
    from umr.protocols import Encoder
    from umr.rendering.pairs import Pair


class Models:
    """An embedder, and rerankers by path.

    Args:
        folder: of the collection, for messages.
        settings: which model made the vectors.
        given: a model that is there already, or where to load it from; by default where the settings say.
        concurrent: the models that are given may be called by several threads at once, as one that collects calls into batches may.
    """

    def __init__(self, folder: Path, settings: CollectionSettings, given: Encoder | str | Path | None, concurrent: bool) -> None:
        self._folder, self._settings, self._given, self._concurrent = folder, settings, given, concurrent
        self._encoder: Encoder | None = None
        self._rerankers: dict[str, PairScorer] = {}
        self._loading, self._calling = threading.Lock(), threading.Lock()
        if given is not None and not isinstance(given, str | Path):
            self.encoder()  # a model of another fingerprint is refused at once

    def encoder(self) -> Encoder:
        """The embedder.

        Raises:
            ModelError: it cannot be loaded.
            StoreError: it is not the model that made the vectors.
        """
        with self._loading:
            if self._encoder is None:
                found = self._given if self._given is not None else self._settings.model
                if isinstance(found, str | Path):
                    from umr.models.embedder import Embedder

                    revision = self._settings.revision if self._given is None else None
                    found = Embedder.load(found, **{**self._settings.loading, "revision": revision})
                self._settings.check_model(found.fingerprint, found.dimension, self._folder)
                self._encoder = reading_texts(found, self._settings)
            return self._encoder

    def reranker(self, given: PairScorer | str | Path) -> PairScorer:
        """A reranker that takes its turn; loaded once for each path.

        Raises:
            ModelError: it cannot be loaded.
        """
        if not isinstance(given, str | Path):
            if not hasattr(given, "score_pairs"):
                raise RecipeError(f"a reranker is a Reranker or where to load one from, not {type(given).__name__}")
            given = self._cleaning(given)
            return given if self._concurrent else InTurn(given, self._calling)
        with self._loading:
            if str(given) not in self._rerankers:
                from umr.models.reranker import Reranker

                self._rerankers[str(given)] = InTurn(self._cleaning(Reranker.load(given)), self._calling)
            return self._rerankers[str(given)]

    def _cleaning(self, reranker: PairScorer) -> PairScorer:
        return CleaningReranker(reranker) if self._settings.texts == "mbeir" else reranker

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the embedder: fast tokenizers refuse two threads at once, and two batches are no faster together than in turn."""
        if self._concurrent:
            yield
            return
        with self._calling:
            yield


class InTurn:
    """A reranker that one thread at a time may ask."""

    def __init__(self, reranker: PairScorer, lock: threading.Lock) -> None:
        self._reranker, self._lock = reranker, lock

    @property
    def fingerprint(self) -> str:
        """Of the reranker."""
        return self._reranker.fingerprint

    def score_pairs(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """P(Yes) of each pair: float32, shape (N,)."""
        with self._lock:
            return self._reranker.score_pairs(pairs)


def reading_texts(encoder: Encoder, settings: CollectionSettings) -> Encoder:
    """A model that is given texts as a collection wants them."""
    return CleaningEncoder(encoder) if settings.texts == "mbeir" else encoder


def dtype_of(encoder: Encoder) -> str:
    """The precision with which a model that is loaded can be loaded again; float32 where it does not say."""
    model = getattr(getattr(encoder, "engine", None), "model", None)
    weights = None if model is None else next(model.parameters(), None)
    return "float32" if weights is None else str(weights.dtype).removeprefix("torch.")


def template_hash(encoder: Encoder) -> str | None:
    """Of the model's template; None for a model that brings its own rendering."""
    renderer = getattr(getattr(encoder, "engine", None), "renderer", None)
    template = getattr(renderer, "template", None)
    return None if template is None else str(template.hash)
