"""Quality against cost: stored vectors made smaller, against plain computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.data.mbeir import MBeir
from umr.progress import quiet
from umr.reports.costs import Cost
from umr.reports.saved import load
from umr.reports.smaller import PRECISIONS, Precision, SmallerRows, bytes_of, dimensions_of, shrink
from umr.reports.stored import stored_costs
from umr.store import ArrayRows
from unit.mbeir_fixture import SETTINGS, BagEncoder
from unit.saved_evaluations import DEPTH, Saved, save_evaluations


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save_evaluations(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def found(saved: Saved) -> dict[tuple[int, Precision, int], Cost]:
    with quiet():
        costs = stored_costs(load(saved.reranked), MBeir(saved.tree), saved.work)
    return {(one.dimension, one.precision, one.depth): one for one in costs}


def test_what_was_measured_is_one_of_the_ways(saved: Saved, found: dict[tuple[int, Precision, int], Cost]) -> None:
    assert found[64, "fp16", 0].main == pytest.approx(saved.results["first"].averages["local"]["main"])
    assert found[64, "fp16", DEPTH].main == pytest.approx(saved.results["reranked"].averages["local"]["main"])
    assert found[64, "fp16", DEPTH].known == 100


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dimension", [64, 32, 16])
def test_each_way_scores_what_a_plain_loop_scores(
    saved: Saved, found: dict[tuple[int, Precision, int], Cost], precision: Precision, dimension: int
) -> None:
    mains = []
    for setting in SETTINGS:
        tree, encoder = MBeir(saved.tree), BagEncoder()
        pool = tree.pool(setting, "test")
        candidates_ND = np.stack([plainly(as_stored(encoder.encode([item])[0]), dimension, precision) for item in pool.items()])
        hits = []
        for query in tree.queries(setting, "test"):
            vector_D = plainly(as_stored(encoder.encode([query.item], "query", query.instructions[0])[0]), dimension, "fp16")
            scores_N = (candidates_ND.astype(np.float64) @ vector_D).astype(np.float32)
            first = np.lexsort((np.arange(len(pool)), -scores_N))[: 10 if setting.startswith("fashioniq") else 5]
            hits.append(bool({pool.ids[row] for row in first} & set(query.positives)))
        mains.append(100 * np.mean(hits))
    assert found[dimension, precision, 0].main == pytest.approx(np.mean(mains))


def as_stored(vector_D: np.ndarray) -> np.ndarray:
    return unit(vector_D.astype(np.float16).astype(np.float32))


def unit(vector_D: np.ndarray) -> np.ndarray:
    """To the last bit as for a row of many: the tree has vectors that differ in no more."""
    return vector_D / np.linalg.norm(vector_D[None], axis=1)


def plainly(vector_D: np.ndarray, dimension: int, precision: Precision) -> np.ndarray:
    """One vector, number by number where that is the point."""
    kept = vector_D[:dimension]
    if dimension < len(vector_D):
        kept = unit(kept)
    if precision == "int8":
        step = np.float32(np.abs(kept).max()) / np.float32(127)
        return np.array([np.float32(np.int8(round(float(value / step)))) * step for value in kept], np.float32)
    if precision == "binary":
        return np.array([1 if value >= 0 else -1 for value in kept], np.float32) / np.float32(np.sqrt(dimension))
    return kept.astype(np.float32)


@given(st.integers(1, 6), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_smaller_vectors_stay_close_to_what_they_were(count: int, dimension: int, seed: int) -> None:
    whole_ND = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    whole_ND /= np.linalg.norm(whole_ND, axis=1, keepdims=True)
    kept = max(1, dimension // 2)
    assert np.array_equal(shrink(whole_ND, dimension, "fp16"), whole_ND)
    assert np.allclose(np.linalg.norm(shrink(whole_ND, kept, "fp16"), axis=1), 1, atol=1e-5)
    eight_ND = shrink(whole_ND, dimension, "int8")
    assert (np.abs(eight_ND - whole_ND) <= np.abs(whole_ND).max(axis=1, keepdims=True) / 254 + 1e-6).all()
    signs_ND = shrink(whole_ND, kept, "binary")
    assert np.allclose(np.abs(signs_ND), kept**-0.5) and ((signs_ND > 0) == (whole_ND[:, :kept] >= 0)).all()
    rows = SmallerRows(ArrayRows(whole_ND), kept, "int8")
    assert (len(rows), rows.dimension) == (count, kept)
    assert np.array_equal(rows.take(np.arange(count)), rows.read(0, count))


def test_vectors_of_zeros_stay_finite() -> None:
    for precision in PRECISIONS:
        assert np.isfinite(shrink(np.array([[0, 0, 1]], np.float32), 2, precision)).all()


def test_sizes() -> None:
    assert dimensions_of(1536) == [1536, 768, 384, 192, 96]
    assert dimensions_of(64) == [64, 32, 16]
    assert dimensions_of(10) == [10]
    assert [bytes_of(20, precision) for precision in PRECISIONS] == [40, 22, 3]
