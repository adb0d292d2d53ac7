"""Metrics against ir-measures, and by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.evaluation import metrics

DEPTH = 12
DOCS = [f"0:{n}" for n in range(20)]


@st.composite
def experiments(draw: st.DrawFn) -> tuple[dict[str, list[str]], dict[str, dict[str, int]]]:
    qids = [f"q{n}" for n in range(draw(st.integers(1, 6)))]
    rankings = {qid: draw(st.lists(st.sampled_from(DOCS), unique=True, max_size=DEPTH)) for qid in qids if draw(st.booleans())}
    qrels = {qid: draw(st.dictionaries(st.sampled_from(DOCS), st.integers(0, 3), min_size=1, max_size=15)) for qid in qids}
    return rankings, qrels


@settings(max_examples=150, deadline=None)
@given(experiments())
def test_every_metric_equals_ir_measures(experiment: tuple[dict[str, list[str]], dict[str, dict[str, int]]]) -> None:
    import ir_measures
    from ir_measures import AP, RR, R, Success, nDCG

    rankings, qrels = experiment
    qids = sorted(qrels)
    judged = metrics.judge(qids, rankings, qrels, DEPTH)
    ours = {
        AP: metrics.average_precision(judged),
        RR: metrics.reciprocal_rank(judged),
        **{Success @ k: metrics.hit_at(judged, k) for k in (1, 5, 10)},
        **{R @ k: metrics.recall_at(judged, k) for k in (5, 10)},
        **{nDCG @ k: metrics.ndcg_at(judged, k) for k in (5, 10)},
    }
    run = {qid: {did: float(-rank) for rank, did in enumerate(dids)} for qid, dids in rankings.items() if dids}
    theirs = {(m.query_id, m.measure): m.value for m in ir_measures.iter_calc(list(ours), qrels, run)}
    for measure, values in ours.items():
        for qid, value in zip(qids, values, strict=True):
            assert value == pytest.approx(theirs.get((qid, measure), 0.0), abs=1e-9), (measure, qid)


def judge_one(ranking: Sequence[str], relevant: Mapping[str, int]) -> metrics.Judged:
    return metrics.judge(["q"], {"q": ranking}, {"q": relevant}, DEPTH)


def test_hit_rate_and_recall_differ_when_several_are_relevant() -> None:
    judged = judge_one(["x", "a", "y", "b"], {"a": 1, "b": 1, "c": 1, "d": 1})
    assert metrics.hit_at(judged, 1) == 0
    assert metrics.hit_at(judged, 5) == 1
    assert metrics.recall_at(judged, 5) == 0.5
    assert metrics.reciprocal_rank(judged) == 0.5
    assert metrics.average_precision(judged) == (1 / 2 + 2 / 4) / 4


def test_queries_without_results_or_positives_score_zero() -> None:
    judged = metrics.judge(["none", "unjudged"], {"unjudged": ["a"]}, {"none": {"a": 1}}, DEPTH)
    for values in (metrics.hit_at(judged, 5), metrics.recall_at(judged, 5), metrics.ndcg_at(judged, 10), metrics.average_precision(judged)):
        assert values.tolist() == [0, 0]


def test_looking_beyond_the_judged_depth_is_an_error() -> None:
    with pytest.raises(ValueError, match="depth"):
        metrics.hit_at(judge_one(["a"], {"a": 1}), DEPTH + 1)


@pytest.mark.parametrize(("relevant", "pool", "k"), [(1, 500, 5), (3, 40, 10), (7, 9, 5), (0, 50, 5), (2, 3, 5)])
def test_chance_level_is_what_shuffling_gives(relevant: int, pool: int, k: int) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([(rng.permutation(pool)[:k] < relevant).any() for _ in range(4000)])
    expected = metrics.expected_hit_at(np.array([relevant]), pool, k)[0]
    assert expected == pytest.approx(drawn.mean(), abs=0.03)
    if relevant == 1:
        assert expected == pytest.approx(k / pool)
