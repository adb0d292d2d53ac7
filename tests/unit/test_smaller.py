"""Vectors in fewer bits and dimensions: what codes stand for, and the two steps of a search, against loops that fit on a screen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.errors import StoreError
from umr.models.shorter import shorten
from umr.reports import latency
from umr.store import VectorStore
from umr.store import smaller as steps
from umr.store.quantiser import PRECISIONS, Coded, Precision, Quantiser, bytes_of
from umr.store.small_store import SmallStore, folder_of
from umr.store.smaller import dimensions_of, first_step, second_step, smaller

CODED: tuple[Coded, ...] = ("int8", "binary")


def cone(count: int, dimension: int, seed: int) -> np.ndarray:
    """Unit vectors that have much in common, as those of one modality do."""
    rng = np.random.default_rng(seed)
    wide_ND = rng.standard_normal((count, dimension)) + 2 * np.random.default_rng(99).standard_normal(dimension)
    return (wide_ND / np.linalg.norm(wide_ND, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_codes_stand_for_what_is_near(count: int, dimension: int, seed: int) -> None:
    whole_ND = cone(count, dimension, seed)
    kept = max(1, dimension // 2)
    for length in (dimension, kept):
        cut_ND = shorten(whole_ND, length)
        assert np.allclose(np.linalg.norm(cut_ND, axis=1), 1, atol=1e-5)
        eight = Quantiser.fit(whole_ND, "int8", "m", length)
        far_ND = np.abs(cut_ND - eight.center_D)
        inside_ND = far_ND <= 127 * eight.step_D
        error_ND = np.abs(eight.vectors(eight.codes(whole_ND)) - cut_ND)
        assert (error_ND[inside_ND] <= (np.broadcast_to(eight.step_D, error_ND.shape)[inside_ND] / 2 + 1e-6)).all()
        assert (error_ND[~inside_ND] <= far_ND[~inside_ND]).all()
        signs = Quantiser.fit(whole_ND, "binary", "m", length)
        codes = signs.codes(whole_ND)
        assert codes.shape == (count, bytes_of(length, "binary")) and codes.dtype == np.uint8
        assert np.array_equal(np.unpackbits(codes, axis=1)[:, :length] == 1, cut_ND > cut_ND.mean(axis=0))
        assert not np.unpackbits(codes, axis=1)[:, length:].any()
        assert np.allclose(np.linalg.norm(signs.vectors(codes), axis=1), 1, atol=1e-5)


def test_a_component_far_out_takes_no_levels_from_the_others() -> None:
    """What one scale a vector does: a component that is hundreds of times larger leaves the others a level or two."""
    whole_ND = np.random.default_rng(0).standard_normal((500, 32)).astype(np.float32)
    whole_ND[:, 3] = 300 * np.sign(whole_ND[:, 3])
    whole_ND /= np.linalg.norm(whole_ND, axis=1, keepdims=True)
    quantiser = Quantiser.fit(whole_ND, "int8", "m")
    error_D = np.abs(quantiser.vectors(quantiser.codes(whole_ND)) - whole_ND).mean(axis=0) / whole_ND.std(axis=0)
    scale_N1 = np.abs(whole_ND).max(axis=1, keepdims=True) / 127
    alone_D = np.abs(np.rint(whole_ND / scale_N1) * scale_N1 - whole_ND).mean(axis=0) / whole_ND.std(axis=0)
    assert error_D.max() < 0.02 < 0.3 < np.median(alone_D)


def test_what_never_changes_stays_finite() -> None:
    for precision in CODED:
        quantiser = Quantiser.fit(np.array([[0, 0, 1]], np.float32), precision, "m", 2)
        assert np.isfinite(quantiser.vectors(quantiser.codes(np.array([[0, 0, 1], [0.6, 0, 0.8]], np.float32)))).all()


def test_a_file_says_every_digit(tmp_path: Path) -> None:
    quantiser = Quantiser.fit(cone(50, 12, 3), "int8", "abc")
    quantiser.save(tmp_path / "q.json")
    again = Quantiser.load(tmp_path / "q.json")
    assert (again.precision, again.fingerprint, again.dimension) == ("int8", "abc", 12)
    assert np.array_equal(again.center_D, quantiser.center_D) and np.array_equal(again.step_D, quantiser.step_D)
    for damage in ("{}", "[1]", "not JSON", json.dumps({"format": 1, "precision": "int4", "center": [1], "step": [1], "model": "m"})):
        (tmp_path / "q.json").write_text(damage)
        with pytest.raises(StoreError, match=r"q\.json: no quantiser"):
            Quantiser.load(tmp_path / "q.json")


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    """300 vectors of 40 components in shards of 100."""
    found = VectorStore.create_or_resume(tmp_path / "store", fingerprint="m", dimension=40)
    for start in range(0, 300, 100):
        found.append([f"1:{n}" for n in range(start, start + 100)], ["text"] * 100, cone(300, 40, 1)[start : start + 100])
    return VectorStore(tmp_path / "store")


def plainly(store: VectorStore, query_D: np.ndarray, precision: Precision, length: int, first: int, rescored: bool) -> list[int]:
    """Both steps for one query, candidate by candidate."""
    whole_ND = store.read(0, len(store))
    cut_ND, asked_D = shorten(whole_ND, length), shorten(query_D[None], length)[0]
    quantiser = None if precision == "fp16" else Quantiser.fit(whole_ND, precision, "m", length)
    kept_ND = cut_ND if quantiser is None else quantiser.vectors(quantiser.codes(whole_ND))
    if precision == "binary":
        signs_D = asked_D > cut_ND.mean(axis=0)
        merit = [-float(sum(bool(a) != bool(b) for a, b in zip(row_D > cut_ND.mean(axis=0), signs_D, strict=True))) for row_D in cut_ND]
    else:
        merit = [float(row_D.astype(np.float64) @ asked_D) for row_D in kept_ND]
    found = sorted(range(len(merit)), key=lambda row: (-merit[row], row))[:first]
    by_ND, by_D = (whole_ND, query_D) if rescored else (kept_ND, asked_D)
    return sorted(found, key=lambda row: (-float(by_ND[row].astype(np.float64) @ by_D), row))


@pytest.mark.parametrize("rescored", [False, True])
@pytest.mark.parametrize("length", [40, 12])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_steps_do_what_a_loop_does(
    store: VectorStore, precision: Precision, length: int, rescored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "RESCORED", 20)
    monkeypatch.setattr(latency, "RESCORED", 20)
    queries_QD = cone(9, 40, 2)
    quantiser = None if precision == "fp16" else Quantiser.of(store, precision, "m", length)
    small = smaller(store, length, quantiser)
    found_QR = first_step(queries_QD, small, 5)
    assert found_QR.shape == (9, 20) and first_step(queries_QD, small, 30).shape == (9, 30)
    rows_QK, scores_QK = second_step(queries_QD, found_QR, store if rescored else small.kept, 5)
    expected = [plainly(store, query_D, precision, length, 20, rescored) for query_D in queries_QD]
    assert rows_QK.tolist() == [rows[:5] for rows in expected]
    assert (np.diff(scores_QK, axis=1) <= 0).all()
    if quantiser is not None:
        made = SmallStore.make(store, quantiser.precision, length)
        assert [one.tolist() for one in made.topk(queries_QD, 5, rescored)] == [rows_QK.tolist(), scores_QK.tolist()]
    # What is timed is the same search, up to the rounding of prefixes to fp16, and of codes that lie between two.
    timed = latency._search_of(store.read(0, 300).astype(np.float16), "m", (length, precision, rescored), 5)
    for query_D, rows in zip(queries_QD, expected, strict=True):
        assert len(set(timed(query_D)[:5].tolist()) & set(rows[:5])) >= 4


def test_rescoring_and_the_center_help(store: VectorStore) -> None:
    """Otherwise nothing above would show that they are there for a reason."""
    queries_QD, whole_ND = cone(60, 40, 5), store.read(0, 300)
    best = [set(np.argsort(-row)[:10].tolist()) for row in queries_QD @ whole_ND.T]

    def share(rows_QK: np.ndarray) -> float:
        return float(np.mean([len(set(found.tolist()) & right) / 10 for found, right in zip(rows_QK, best, strict=True)]))

    made = SmallStore.make(store, "binary")
    alone, rescored = share(made.topk(queries_QD, 10, rescore=False)[0]), share(made.topk(queries_QD, 10)[0])
    origin = share(np.argsort(-(queries_QD @ np.sign(whole_ND).T), axis=1)[:, :10])
    assert rescored > alone + 0.2 and alone > origin + 0.1
    assert share(SmallStore.make(store, "int8").topk(queries_QD, 10, rescore=False)[0]) > 0.9


def test_codes_on_disk(store: VectorStore, tmp_path: Path) -> None:
    made = SmallStore.make(store, "int8", 16)
    again = SmallStore(store, 16, "int8")
    assert (len(again), again.codes.shape, again.codes.dtype) == (300, (300, 16), np.int8)
    assert np.array_equal(again.codes, made.quantiser.codes(store.read(0, 300)))
    assert sorted(file.name for file in again.path.iterdir()) == ["codes.npy", "made_from", "quantiser.json"]
    assert VectorStore(store.path).read(0, 300).shape == (300, 40)
    with pytest.raises(StoreError, match=r"small/16-binary: no codes here; make them again"):
        SmallStore(store, 16, "binary")
    for dimension in (0, 41):
        with pytest.raises(StoreError, match=f"300 vectors of 40 components have no codes of {dimension}"):
            SmallStore.make(store, "int8", dimension)
    (again.path / "codes.npy").write_bytes(b"something else")
    with pytest.raises(StoreError, match=r"codes\.npy: damaged codes"):
        SmallStore(store, 16, "int8")
    SmallStore.make(store, "int8", 16)
    store.append(["1:more"], ["text"], cone(1, 40, 8))
    with pytest.raises(StoreError, match="codes of other vectors than"):
        SmallStore(store, 16, "int8")
    assert len(SmallStore.make(store, "int8", 16)) == 301 and not list(folder_of(store, 16, "int8").parent.glob(".*"))


def test_sizes() -> None:
    assert dimensions_of(1536) == [1536, 768, 384, 192, 96]
    assert dimensions_of(64, (64, 48, 16)) == [64, 48, 32, 16]
    assert dimensions_of(10) == [10]
    assert [bytes_of(20, precision) for precision in PRECISIONS] == [40, 20, 3]
