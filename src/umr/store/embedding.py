"""Filling a vector store with the vectors of a list of items, from wherever the last run stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from umr.errors import StoreError
from umr.items import Item, Side
from umr.progress import Bar
from umr.protocols import Encoder, Vectors
from umr.store.vectors import VectorStore, arrow_ids

Fetch: TypeAlias = Callable[[int, int], Sequence[Item]]
"""`fetch(start, stop)`: the items of those positions, in order."""

SHARD_SIZE = 4096
ITEMS_PER_CALL = 2048  # enough for the encoder to sort by cost, few enough to show progress


def embed_into(
    store: VectorStore,
    encoder: Encoder,
    ids: Sequence[str],
    fetch: Fetch,
    side: Side,
    instructions: Sequence[str | None] | None = None,
    shard_size: int = SHARD_SIZE,
    bar: Bar | None = None,
) -> None:
    """Embed the items that `store` does not hold yet; afterwards its rows are `ids` in order.

    The encoder is always called with the same groups of items, whether the work was interrupted or not, so the store's
    files are the same bytes either way.

    Args:
        store: empty, or filled by an earlier call with the same items.
        encoder: the model; its fingerprint must be the store's.
        ids: N unique ids.
        fetch: gives the items of a range of positions.
        side: passed to the encoder.
        instructions: N instructions, or `None` for none.
        shard_size: rows a shard; at most this many are lost when the process is killed.
        bar: advanced by the number of items done, those that were there already included.

    Raises:
        StoreError: the store belongs to another model or other items, or a vector is zero or not finite.
    """
    if encoder.fingerprint != store.fingerprint or side != store.side:
        raise StoreError(
            f"{store.path} holds {store.side} vectors of model {store.fingerprint}, not {side} vectors of {encoder.fingerprint}: "
            "choose another folder"
        )
    done = bar.advance if bar else _ignore
    _check_prefix(store, ids)
    if len(store) < len(ids):
        with store.writing():
            _check_prefix(store, ids)
            done(len(store))
            for start in range(len(store), len(ids), shard_size):
                stop = min(start + shard_size, len(ids))
                modalities, vectors_ND = _encode(encoder, fetch, start, stop, side, instructions, done)
                store.append(ids[start:stop], modalities, vectors_ND)
    else:
        done(len(ids))


def _ignore(count: int) -> None:
    pass


def _check_prefix(store: VectorStore, ids: Sequence[str]) -> None:
    if len(store) > len(ids) or not arrow_ids(ids, len(store)).equals(store.ids):
        raise StoreError(f"{store.path} holds the vectors of other items: delete the folder or choose another one")


def _encode(
    encoder: Encoder,
    fetch: Fetch,
    start: int,
    stop: int,
    side: Side,
    instructions: Sequence[str | None] | None,
    done: Callable[[int], None],
) -> tuple[list[str], Vectors]:
    modalities: list[str] = []
    parts = []
    for first in range(start, stop, ITEMS_PER_CALL):
        last = min(first + ITEMS_PER_CALL, stop)
        items = fetch(first, last)
        modalities += [item.modality for item in items]
        parts.append(encoder.encode(items, side, None if instructions is None else list(instructions[first:last])))
        done(last - first)
    return modalities, np.concatenate(parts)
