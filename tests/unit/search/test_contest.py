import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.search import contest
from umr.search.contest import Listed, best
from umr.search.scoring import Found, exact, scores_of


def unit(draw: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    wide_ND = draw.standard_normal((count, dimension))
    return wide_ND / np.linalg.norm(wide_ND, axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    k=st.integers(1, 60),
    first=st.sampled_from([1, 5, 50]),
)
def test_candidates_in_the_right_order_are_enough(seed, sizes, k, first):
    """Among partitions, some searched already, with vectors that occur several times."""
    draw = np.random.default_rng(seed)
    query_D = unit(draw, 1, 33).astype(np.float32)[0]
    few_ND = unit(draw, 20, 33).astype(np.float16)
    parts = [few_ND[draw.integers(20, size=size)] for size in sizes]
    scores = [(part_ND.astype(np.float64) * query_D).sum(axis=1).astype(np.float32) for part_ND in parts]
    listed: list[Found | Listed] = [
        exact(query_D[None], part_ND, k)[0] if draw.random() < 0.3 else Listed(part_ND, np.argsort(-some, kind="stable"))
        for part_ND, some in zip(parts, scores, strict=True)
    ]
    everything = np.sort(np.concatenate(scores))[::-1]
    least = everything[min(k, len(everything)) - 1] if len(everything) else 0
    for one, some in zip(best(query_D, listed, k, first), scores, strict=True):
        assert set(np.flatnonzero(some >= least)) <= set(one.rows.tolist())
        assert len(set(one.rows.tolist())) == len(one.rows)
        assert one.scores.tolist() == some[one.rows].tolist()


def test_who_brings_nothing_goes_no_further(monkeypatch: pytest.MonkeyPatch):
    scored: list[int] = []

    def counted(query_D: np.ndarray, vectors_ND: np.ndarray, rows: np.ndarray) -> np.ndarray:
        scored.append(len(rows))
        return scores_of(query_D, vectors_ND, rows)

    monkeypatch.setattr(contest, "scores_of", counted)
    angle_N = np.linspace(0, 1, 1000)
    near_ND = np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1).astype(np.float16)
    listed = [Listed(near_ND, np.arange(1000)), Listed(-near_ND, np.arange(1000))]
    found = best(np.array([1, 0], np.float32), listed, 30, 10)
    assert found[0].rows[:30].tolist() == list(range(30)) and len(found[1].rows) == 0
    assert scored == [10, 10, 10, 10, 20, 20, 40], "both until one alone has 30; then that one until 40 more bring nothing"
