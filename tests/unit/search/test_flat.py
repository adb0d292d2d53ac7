import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.search import flat
from umr.search.flat import Signs, faiss_or_none, mean_of, pack, pack_all, sample_rows
from umr.search.scoring import exact, rescore
from unit.search.cones import cones

FAISS = pytest.param(faiss_or_none(), id="faiss", marks=pytest.mark.skipif(faiss_or_none() is None, reason="needs faiss"))
ENGINES = [FAISS, pytest.param(None, id="numpy")]


def unit(draw: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    wide_ND = draw.standard_normal((count, dimension))
    return wide_ND / np.linalg.norm(wide_ND, axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    count=st.integers(1, 60),
    dimension=st.sampled_from([1, 7, 64, 65, 200]),
    asked=st.integers(1, 3),
    depth=st.integers(1, 80),
    some=st.booleans(),
    slice_rows=st.sampled_from([1, 10, 1 << 16]),
    counted=st.sampled_from([0, 20_000, 1 << 28]),
    engine=st.sampled_from([None, faiss_or_none()]),
)
def test_the_nearest_by_signs(seed, count, dimension, asked, depth, some, slice_rows, counted, engine):
    """Against counting signs one by one; rows at equal distance may stand for each other."""
    draw = np.random.default_rng(seed)
    vectors_ND, queries_QD = unit(draw, count, dimension).astype(np.float16), unit(draw, asked, dimension).astype(np.float32)
    mean_D = mean_of(vectors_ND)
    rows = np.flatnonzero(draw.random(count) < 0.5) if some else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "SLICE", slice_rows)
        patch.setattr(flat, "_COUNTED", counted)
        patch.setattr(flat, "threads", lambda: 3)
        listed = Signs(pack_all(vectors_ND, mean_D), mean_D, engine).nearest(queries_QD, depth, rows)
    among = np.arange(count) if rows is None else rows
    for query_D, found in zip(queries_QD, listed, strict=True):
        far_N = ((query_D > mean_D) != (vectors_ND.astype(np.float32) > mean_D)).sum(axis=1)
        assert far_N[found].tolist() == np.sort(far_N[among])[:depth].tolist()
        assert len(set(found.tolist())) == len(found) and np.isin(found, among).all()


def test_bits_are_filled_up_to_words():
    assert pack(np.array([[1.0, -1.0, 1.0]], np.float32), np.zeros(3, np.float32)).tolist() == [[0b10100000, 0, 0, 0, 0, 0, 0, 0]]
    assert pack(np.ones((2, 64), np.float32), np.full(64, 2, np.float32)).tolist() == [[0] * 8] * 2


@pytest.mark.parametrize("engine", ENGINES)
def test_signs_and_rescoring_find_what_is_near(engine):
    made = cones(4000, 256, {"text": 0.99, "image": 0.01})
    vectors_ND, queries_QD = made["text"][0], made["image"][0].astype(np.float32)
    mean_D = mean_of(vectors_ND)
    signs = Signs(pack_all(vectors_ND, mean_D), mean_D, engine)
    found = [rescore(query_D, vectors_ND, rows, 10) for query_D, rows in zip(queries_QD, signs.nearest(queries_QD, 800), strict=True)]
    true = exact(queries_QD, vectors_ND, 10)
    assert np.mean([len(np.intersect1d(a.rows, b.rows)) / 10 for a, b in zip(found, true, strict=True)]) >= 0.95
    assert signs.bytes == 3960 * 256 // 8


def test_a_sample_is_the_same_each_time():
    assert sample_rows(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert len(set(sample_rows(1000, 9).tolist())) == 9
    assert np.array_equal(sample_rows(1000, 9), sample_rows(1000, 9))
    assert mean_of(np.empty((0, 3), np.float16)).tolist() == [0, 0, 0]
