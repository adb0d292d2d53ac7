"""Reciprocal rank fusion and shifted modalities against what the formulas say, written out."""

from __future__ import annotations

import string

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umr.search.fusion import reciprocal_ranks, shifted
from umr.search.table import Near

IDS = st.sampled_from(string.ascii_lowercase)
SCORES = st.integers(-4, 4).map(float)
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def rankings(draw: st.DrawFn) -> list[Near]:
    ids = draw(st.lists(IDS, unique=True, max_size=12))
    scores = sorted((draw(SCORES) for _ in ids), reverse=True)
    return sorted((Near(id, score) for id, score in zip(ids, scores, strict=True)), key=lambda near: (-near.score, near.id))


def test_the_formula_of_the_paper():
    a, b = [Near("x", 9.0), Near("y", 1.0)], [Near("y", 0.3), Near("z", 0.2)]
    found = reciprocal_ranks({"vector": a, "words": b})
    assert [(near.id, near.score) for near in found] == [("y", 1 / 62 + 1 / 61), ("x", 1 / 61), ("z", 1 / 62)]


def test_weights_and_the_constant():
    lists = {"vector": [Near("x", 1.0), Near("y", 0.9)], "words": [Near("y", 5.0)]}
    assert [near.id for near in reciprocal_ranks(lists, {"words": 0.001})] == ["x", "y"]
    assert [near.id for near in reciprocal_ranks(lists, {"words": 2.0})] == ["y", "x"]
    assert reciprocal_ranks(lists, {"words": 0.0, "vector": 1.0}, constant=1)[0] == Near("x", 0.5)
    assert reciprocal_ranks(lists, {"vector": 0.0}) == [Near("y", 1 / 61)]


def test_equal_ranks_are_ties_and_go_by_id():
    lists = {"a": [Near("q", 2.0), Near("c", 1.0)], "b": [Near("c", 7.0), Near("q", 6.0)]}
    assert [near.id for near in reciprocal_ranks(lists)] == ["c", "q"]


@PATIENT
@given(st.lists(rankings(), min_size=1, max_size=4), st.randoms())
def test_fusion_depends_on_ranks_alone_and_on_no_order_of_lists(lists: list[list[Near]], random):
    named = {str(place): found for place, found in enumerate(lists)}
    merged = reciprocal_ranks(named)
    assert {near.id for near in merged} == {near.id for found in lists for near in found}
    assert merged == sorted(merged, key=lambda near: (-near.score, near.id))
    names = list(named)
    random.shuffle(names)
    stretched = {name: [Near(near.id, 3 * near.score + 100) for near in named[name]] for name in names}
    assert reciprocal_ranks(stretched) == merged


@PATIENT
@given(st.lists(st.tuples(SCORES, st.sampled_from("tiv")), max_size=20), st.dictionaries(st.sampled_from("tiv"), SCORES), st.integers(1, 8))
def test_shifted_lists_give_the_first_of_all_shifted_scores(scored: list[tuple[float, str]], offsets: dict[str, float], k: int):
    everything = [(Near(f"{place:02}", score), kind) for place, (score, kind) in enumerate(scored)]
    lists = {kind: sorted((near for near, of in everything if of == kind), key=lambda near: (-near.score, near.id))[:k] for kind in "tiv"}
    naive = sorted(
        (Near(near.id, near.score + offsets.get(kind, 0.0)) for near, kind in everything), key=lambda near: (-near.score, near.id)
    )
    assert shifted(lists, offsets)[:k] == naive[:k]
