import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.search import scoring
from umr.search.scoring import exact, widen


def unit(draw: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    wide_ND = draw.standard_normal((count, dimension))
    return wide_ND / np.linalg.norm(wide_ND, axis=1, keepdims=True)


def test_every_half_is_widened_exactly():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 64)
    assert np.array_equal(widen(every), every.astype(np.float32), equal_nan=True)
    every.flags.writeable = False
    assert np.array_equal(widen(every[::2, 3:9]), every[::2, 3:9].astype(np.float32), equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 80), k=st.integers(1, 90), some=st.booleans(), step=st.sampled_from([1, 50, 1 << 24]))
def test_exact_finds_the_best_and_what_ties_with_the_last(seed, count, k, some, step):
    """Rows occur several times, so that there are ties; each pair is scored alone, whatever stands beside it."""
    draw = np.random.default_rng(seed)
    vectors_ND = unit(draw, max(1, count // 4), 33).astype(np.float16)[draw.integers(max(1, count // 4), size=count)]
    queries_QD = unit(draw, 3, 33).astype(np.float32)
    rows = np.flatnonzero(draw.random(count) < 0.7) if some else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "SCORES", step)
        patch.setattr(scoring, "BLOCK", 16)
        found = exact(queries_QD, vectors_ND, k, rows)
    among = np.arange(count) if rows is None else rows
    for query_D, one in zip(queries_QD, found, strict=True):
        scores_R = (vectors_ND[among].astype(np.float64) * query_D).sum(axis=1).astype(np.float32)
        least = np.sort(scores_R)[::-1][min(k, len(among)) - 1] if len(among) else 0
        assert sorted(one.rows.tolist()) == among[scores_R >= least].tolist()
        assert one.scores.tolist() == [scores_R[np.flatnonzero(among == row)[0]] for row in one.rows]
