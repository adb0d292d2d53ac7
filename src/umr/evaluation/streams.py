"""One stream of candidates for many pools: the stores that they read, each once, laid end to end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from umr.errors import RecipeError
from umr.store import Among, Asked, Laid, Saved, Streaming, TooLittle, VectorStore, VectorView, resident, size_text
from umr.store.streaming import quickest


class Stream:
    """The candidates of several pools.

    Args:
        pools: at least one; stores, and views of stores. A store that several of them use is read once.

    Attributes:
        rows: the candidates.

    Raises:
        StoreError: vectors of different models.
    """

    def __init__(self, pools: Iterable[VectorStore | VectorView]) -> None:
        stores: dict[Path, VectorStore] = {}
        for pool in pools:
            for store in pool.stores if isinstance(pool, VectorView) else [pool]:
                stores.setdefault(store.path, store)
        self.rows = Laid(list(stores.values()))
        self._start = dict(zip(stores, self.rows.offsets.tolist(), strict=False))
        self._known: dict[int, Among] = {}

    def among(self, pool: VectorStore | VectorView) -> Among:
        """Where the candidates of a pool are in the stream."""
        if id(pool) not in self._known:
            self._known[id(pool)] = self._view(pool) if isinstance(pool, VectorView) else Among.run(self._start[pool.path], len(pool))
        return self._known[id(pool)]

    def _view(self, view: VectorView) -> Among:
        own = np.cumsum([0] + [len(store) for store in view.stores])
        number = np.searchsorted(own, view.rows, side="right") - 1
        shift = np.array([self._start[store.path] for store in view.stores]) - own[:-1]
        return Among.of(view.rows + shift[number])


def plan(stream: Stream, asked: Sequence[Asked], memory: int | None, saved: Saved | None = None) -> Streaming:
    """A search of the stream, on a GPU where there is one with room for it.

    Args:
        stream: all candidates.
        asked: queries and their pools.
        memory: bytes that the process may hold while it searches, with what it holds already; `None` for no limit.
        saved: keeps what is done of a long search.

    Raises:
        RecipeError: `memory` is too little. Says how much would do.
    """
    stream.rows.release()
    held = resident() if memory is not None else 0
    room = None if memory is None else memory - held
    try:
        return quickest(stream.rows, asked, room, saved)
    except TooLittle as error:
        raise RecipeError(
            f"memory {size_text(memory or 0)} is too little for this search: the process holds {size_text(held)} and needs at least "
            f"{size_text(error.needed)} more; give {size_text(held + error.needed + (32 << 20))}, or search fewer tasks or a smaller depth"
        ) from error
