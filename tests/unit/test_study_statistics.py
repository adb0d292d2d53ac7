"""Intervals and the paired test, against scipy and against what must hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from umr.study.statistics import bootstrap, estimate, holm, sign_flip


@given(st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_the_interval_is_students(values: list[float]):
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.half_width is not None
    if np.std(values) > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert found.half_width == pytest.approx((high - low) / 2)


def test_a_single_seed_has_no_interval():
    assert estimate([3.0]).half_width is None


def test_the_paired_test_comes_close_to_all_sign_flips():
    groups = [np.array([1, 0, 1, 1, -1, 0]), np.array([1, 1, 0, 1])]
    weighted = np.concatenate([group / len(group) / 2 for group in groups])
    observed = abs(weighted.sum())
    every = [abs(np.dot(signs, weighted)) >= observed - 1e-12 for signs in itertools.product((-1, 1), repeat=len(weighted))]
    assert sign_flip(groups) == pytest.approx(np.mean(every), abs=0.02)


def test_equal_hits_are_not_significant_and_clear_ones_are():
    assert sign_flip([np.zeros(50)]) == 1.0
    assert sign_flip([np.ones(50)]) == pytest.approx(1 / 10_001)


@given(st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=20), min_size=1, max_size=4))
def test_the_test_is_seeded_and_blind_to_which_variant_comes_first(groups: list[list[int]]):
    arrays = [np.array(group) for group in groups]
    value = sign_flip(arrays, draws=500)
    assert 0 < value <= 1
    assert value == sign_flip(arrays, draws=500) == sign_flip([-array for array in arrays], draws=500)


def test_on_nothing_but_chance_small_values_are_rare():
    rng = np.random.default_rng(0)
    values = [sign_flip([rng.integers(-1, 2, 60), rng.integers(-1, 2, 30)], draws=400) for _ in range(200)]
    assert np.mean(np.array(values) <= 0.05) < 0.11


def test_the_bootstrap_comes_close_to_drawing_the_queries_themselves():
    rng = np.random.default_rng(1)
    groups = [rng.random(40).round(1), rng.integers(0, 2, 15).astype(float)]
    drawn = [np.mean([rng.choice(group, len(group)).mean() for group in groups]) for _ in range(4000)]
    assert bootstrap(groups) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.01)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=20), min_size=1, max_size=4))
def test_the_bootstrap_is_seeded_and_stays_within_the_values(groups: list[list[float]]):
    arrays = [np.array(group) for group in groups]
    low, high = bootstrap(arrays, draws=300)
    assert (low, high) == bootstrap(arrays, draws=300)
    assert np.mean([array.min() for array in arrays]) - 1e-12 <= low <= high <= np.mean([array.max() for array in arrays]) + 1e-12


def test_the_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    intervals = [bootstrap([rng.random(60) < 0.4, rng.random(30) < 0.8], draws=400) for _ in range(300)]
    assert 0.90 < np.mean([low <= 0.6 <= high for low, high in intervals]) < 0.98


def test_holms_correction_is_that_of_the_book():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5]) == [0.5]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
