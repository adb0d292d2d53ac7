"""Pieces in any order, twice, and with the commit killed at any step: one store comes of it, whose bytes are those of appending."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr import files
from umr.errors import StoreError
from umr.store.pieces import Pieces
from umr.store.shard_files import shard_contents
from umr.store.vectors import VectorStore
from unit.bulk.bags import contents

PIECES, ROWS, WIDTH = 4, 3, 5
VECTORS = np.random.default_rng(0).normal(size=(PIECES, ROWS, WIDTH)).astype(np.float32)


def open_store(path: Path) -> VectorStore:
    return VectorStore.create_or_resume(path, fingerprint="model", dimension=WIDTH, source="test")


def ids(number: int) -> list[str]:
    return [f"{number}:{row}" for row in range(ROWS)]


def put(store: VectorStore, number: int) -> bool:
    return Pieces(store.path).put(number, ROWS, shard_contents(number, ids(number), ["text"] * ROWS, VECTORS[number]))


def commit(store: VectorStore) -> None:
    with store.writing():
        Pieces(store.path).commit(store)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    store = open_store(tmp_path_factory.mktemp("appended"))
    for number in range(PIECES):
        store.append(ids(number), ["text"] * ROWS, VECTORS[number])
    return contents(store.path)


class Killed(BaseException):
    pass


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Break off at the `step`th change to the file system."""
    left = [step]
    changes = [(os, "replace"), (files, "write_text"), (files, "flush"), (shutil, "rmtree")]
    with pytest.MonkeyPatch.context() as patch:
        for module, name in changes:

            def change(*given: object, real: object = getattr(module, name), **more: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return real(*given, **more)  # type: ignore[operator]

            patch.setattr(module, name, change)
        yield


@settings(max_examples=30, deadline=None)
@given(
    order=st.permutations(range(PIECES)),
    again=st.lists(st.integers(0, PIECES - 1), max_size=2),
    commits=st.sets(st.integers(0, PIECES)),
    step=st.integers(0, 14),
)
def test_one_store_comes_of_it(order: list[int], again: list[int], commits: set[int], step: int, expected: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "store")
        for place, number in enumerate([*order, *again]):
            if number >= store.shards:
                assert put(store, number) == (place < PIECES)
            if place in commits:
                try:
                    with killed_at(step):
                        commit(store)
                except Killed:
                    store = VectorStore(store.path)  # whatever is there opens
        commit(store)
        assert contents(store.path) == expected


def test_a_piece_that_comes_late_is_thrown_away(tmp_path: Path, expected: dict[str, bytes]) -> None:
    store = open_store(tmp_path / "store")
    for number in range(PIECES):
        put(store, number)
    commit(store)
    assert put(store, 2)  # by a worker of a coordinator that was killed
    (tmp_path / "store" / "pieces" / ".00003.half").mkdir()
    commit(store)
    assert contents(store.path) == expected


def test_a_gap_ends_what_is_committed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    for number in (0, 2, 3):
        put(store, number)
    commit(store)
    assert (store.shards, len(store)) == (1, ROWS)
    assert [Pieces(store.path).has(number) for number in range(PIECES)] == [False, False, True, True]


def test_a_damaged_piece_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    put(store, 0)
    (store.path / "pieces" / "00000" / "00000.npy").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"00000\.npy: damaged shard"):
        commit(store)
