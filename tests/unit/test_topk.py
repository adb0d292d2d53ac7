"""Exact search: against brute force, with ties, and whatever the block size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from umr.store import ArrayRows, exact_topk, scanning


def brute_force(queries: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = (queries.astype(np.float64) @ candidates.astype(np.float64).T).astype(np.float32)
    rows = np.broadcast_to(np.arange(len(candidates)), scores.shape)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return order, np.take_along_axis(scores, order, 1)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    q=st.integers(1, 5),
    n=st.integers(1, 120),
    d=st.integers(1, 6),
    k=st.integers(1, 40),
    block=st.integers(1, 130),
    tied=st.booleans(),
)
def test_equals_brute_force_for_any_block_size(seed: int, q: int, n: int, d: int, k: int, block: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    # Small integers over a power of two are exact in every order of summation, and collide often; k + MARGIN < n occurs.
    queries, candidates = ((rng.integers(-2, 3, (rows, d)) / 4 if tied else rng.standard_normal((rows, d))) for rows in (q, n))
    queries, candidates = queries.astype(np.float32), candidates.astype(np.float32)
    rows, scores = exact_topk(queries, ArrayRows(candidates), k, block=block)
    expected_rows, expected_scores = brute_force(queries, candidates, k)
    assert np.array_equal(rows, expected_rows)
    assert np.array_equal(scores, expected_scores)


def test_equal_scores_come_in_row_order_even_when_everything_ties() -> None:
    rows, scores = exact_topk(np.ones((2, 3), np.float32), ArrayRows(np.ones((5000, 3), np.float32)), 4, block=700)
    assert rows.tolist() == [[0, 1, 2, 3]] * 2
    assert (scores == 3).all()


def test_negative_zero_ties_with_zero() -> None:
    candidates = np.array([[-1], [0], [1]] * 40, np.float32)
    rows, _ = exact_topk(np.array([[-0.0]], np.float32), ArrayRows(candidates), 5)
    assert rows.tolist() == [[0, 1, 2, 3, 4]]


def test_bytes_do_not_depend_on_blocks_or_threads() -> None:
    rng = np.random.default_rng(3)
    candidates = rng.standard_normal((3000, 96)).astype(np.float32)
    candidates[1500:1520] = candidates[7]  # equal vectors must stay in row order whatever the matrix product rounds to
    queries = candidates[:600] + 0.1 * rng.standard_normal((600, 96)).astype(np.float32)
    expected = exact_topk(queries, ArrayRows(candidates), 50)
    for block, threads in ((3000, 2), (977, 1), (64, 2)):
        with threadpool_limits(threads):
            got = exact_topk(queries, ArrayRows(candidates), 50, block=block)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(expected, got, strict=True))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(expected, brute_force(queries, candidates, 50), strict=True))


@pytest.mark.parametrize(("q", "n", "k"), [(2, 3, 10), (2, 0, 5), (0, 4, 2)])
def test_more_results_than_candidates_and_nothing_at_all(q: int, n: int, k: int) -> None:
    rows, scores = exact_topk(np.ones((q, 2), np.float32), ArrayRows(np.ones((n, 2), np.float32)), k)
    assert rows.shape == scores.shape == (q, min(k, n))


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        exact_topk(np.array([[np.nan]], np.float32), ArrayRows(np.ones((3, 1), np.float32)), 1)


def test_a_long_scan_goes_through_several_query_groups() -> None:
    rng = np.random.default_rng(1)
    candidates = rng.integers(-8, 9, (2000, 8)).astype(np.float32)
    queries = rng.integers(-8, 9, (scanning.QUERIES + 10, 8)).astype(np.float32)
    rows, scores = exact_topk(queries, ArrayRows(candidates), 5, block=300)
    expected_rows, expected_scores = brute_force(queries, candidates, 5)
    assert np.array_equal(scores, expected_scores)
    assert np.array_equal(rows, expected_rows)
