"""Modality-aware mining on arrays: sets against plain loops, the draw between them, quotas, limits by pair, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.errors import RecipeError
from umr.mining.filters import BY_CONTENT, GLOBAL, KEPT, NONE, OPEN, REASONS, Lists, judge, preference
from umr.mining.limits import MODALITIES, limit_for
from umr.mining.modality import SET_NAMES, choose_by_quota, choose_from_sets, draw_sets, sets_of
from umr.mining.queries import Ragged, hashes
from umr.mining.rules import Rules, walk
from umr.mining.settings import MineSettings, from_words, parse


def ragged(*lists: list[int]) -> Ragged:
    return Ragged(np.array([row for one in lists for row in one], np.int64), np.cumsum([0, *map(len, lists)]).astype(np.int64))


def values_of(**aware: Any) -> dict[str, Any]:
    return {"modality_aware": aware, "depth": 12}


@st.composite
def rankings(draw: st.DrawFn) -> dict[str, Any]:
    """A ranking of up to 12 candidates with falling scores, many of them equal, and positives in it and outside."""
    rows = draw(st.lists(st.integers(0, 19), max_size=12, unique=True))
    return {
        "rows": rows,
        "modalities": draw(st.lists(st.integers(0, 3), min_size=20, max_size=20)),
        "scores": sorted(draw(st.lists(st.sampled_from([-0.5, 0.25, 0.5, 0.75]), min_size=len(rows), max_size=len(rows))), reverse=True),
        "positives": draw(st.lists(st.integers(0, 25), max_size=3, unique=True)),
        "judged": draw(st.lists(st.integers(0, 25), max_size=2, unique=True)),
    }


aware = st.fixed_dictionaries(
    {
        "right_after_rank": st.none() | st.integers(3, 11),
        "min_rank": st.integers(1, 3),
        "max_similarity": st.none() | st.just(0.5),
        "max_relative": st.none() | st.just(0.9),
        "margin": st.none() | st.just(0.25),
    }
)


def reference(one: dict[str, Any], target: int, best_score: float, on: dict[str, Any]) -> tuple[set[int], set[int]]:
    """C1 and C2 of one query, as their definition reads."""
    right = {*one["positives"], *one["judged"]}
    ranks = {row: rank for rank, row in enumerate(one["rows"], 1)}
    first = min((ranks[row] for row in right if row in ranks), default=math.inf)
    c1, c2 = set(), set()
    for row, rank in ranks.items():
        if row in right or rank < on["min_rank"]:
            continue
        score, same = one["scores"][rank - 1], one["modalities"][row] == target
        if not same and rank < first:
            c1.add(row)
        late = on["right_after_rank"] is None or rank > on["right_after_rank"]
        low = on["max_similarity"] is None or score <= on["max_similarity"]
        below = on["max_relative"] is None or not score > best_score - 0.1 * abs(best_score) + 1e-6
        beneath = on["margin"] is None or not score > best_score - on["margin"]
        if same and late and low and below and beneath:
            c2.add(row)
    return c1, c2


@given(st.lists(rankings(), min_size=1, max_size=4), aware, st.integers(0, 3), st.sampled_from([math.nan, -0.5, 0.6, 0.75]))
def test_the_sets_are_those_of_the_definition(several: list[dict[str, Any]], on: dict[str, Any], target: int, best: float) -> None:
    width = max(len(one["rows"]) for one in several)
    rows_QW = np.array([one["rows"] + [-1] * (width - len(one["rows"])) for one in several], np.int64).reshape(len(several), width)
    scores_QW = np.array([one["scores"] + [-1.0] * (width - len(one["scores"])) for one in several], np.float32).reshape(rows_QW.shape)
    pairs = zip(several, rows_QW.tolist(), strict=True)
    modalities = [[one["modalities"][row] if row >= 0 else 0 for row in rows] for one, rows in pairs]
    modalities_QW = np.array(modalities, np.uint8).reshape(rows_QW.shape)
    values = {key: value for key, value in on.items() if key != "right_after_rank"}
    wanted = MineSettings(**values_of(right_after_rank=on["right_after_rank"]), **values)
    rules = Rules.of(wanted, "text", MODALITIES[target])
    lists = Lists.ranked(rows_QW, scores_QW, GLOBAL)
    right = [ragged(*(one[name] for one in several)) for name in ("positives", "judged")]
    codes_QW = judge(lists, modalities_QW, *right, np.full(len(several), best, np.float32), rules)
    sets_QW = sets_of(codes_QW, modalities_QW, rules)
    for query, one in enumerate(several):
        found = [set(rows_QW[query][sets_QW[query] == code].tolist()) for code in (1, 2)]
        assert found == [*reference(one, target, best, on)]
        assert ((sets_QW[query] > 0) == (codes_QW[query] == OPEN)).all()


def test_a_candidate_in_no_set_says_why() -> None:
    rules = Rules.of(MineSettings(depth=6, modality_aware={"right_after_rank": 3}), "text", "image")
    lists = Lists.ranked(np.arange(6)[None], np.linspace(0.9, 0.4, 6)[None], GLOBAL)
    modalities = np.array([[0, 1, 1, 0, 1, 2]], np.uint8)
    codes = judge(lists, modalities, ragged([2]), ragged([]), np.array([0.7], np.float32), rules)
    names = {OPEN: "open"} | dict(enumerate(REASONS))
    early, below = "right modality ranked early", "wrong modality below the positive"
    assert [names[code] for code in codes[0]] == ["open", early, "positive by id", below, "open", below]
    assert [SET_NAMES[code] for code in sets_of(codes, modalities, rules)[0]] == ["C1", "", "", "", "C2", ""]


places = st.lists(st.sampled_from([(OPEN, 1), (OPEN, 2), (OPEN, 1), (OPEN, 2), (NONE, 0), (5, 0)]), min_size=8, max_size=8)


@given(
    st.lists(places, min_size=1, max_size=4), st.integers(1, 6), st.data(), st.sampled_from(["top", "random"]), st.sets(st.integers(0, 7))
)
def test_drawing_takes_from_the_other_set_where_one_is_empty(
    table: list[list[tuple[int, int]]], count: int, data: st.DataObject, select: Any, bad: set[int]
) -> None:
    codes_QW = np.array([[code for code, _ in row] for row in table], np.uint8)
    sets_QW = np.array([[which for _, which in row] for row in table], np.uint8)
    hashes_Q = hashes([f"q{number}" for number in range(len(table))], 1)
    order_QW = preference(np.broadcast_to(np.arange(8), codes_QW.shape), select, hashes_Q)
    from_c1 = [data.draw(st.integers(0, count)) for _ in table]
    asked: list[tuple[int, int]] = []

    def check(queries_P: np.ndarray, places_P: np.ndarray) -> np.ndarray:
        asked.extend(zip(queries_P.tolist(), places_P.tolist(), strict=True))
        return np.array([BY_CONTENT if place in bad else KEPT for place in places_P], np.uint8)

    chosen_QW = choose_from_sets(codes_QW, sets_QW, order_QW, np.array(from_c1), count, check)
    assert len(set(asked)) == len(asked) and not (chosen_QW == OPEN).any()
    for query in range(len(table)):
        queues = {which: [place for place in order_QW[query] if sets_QW[query, place] == which and place not in bad] for which in (1, 2)}
        kept: list[int] = []
        for slot in range(count):  # one negative at a time, each from the set that its draw says, or from the other one
            first = 1 if slot < from_c1[query] else 2
            queue = queues[first] or queues[3 - first]
            kept += [queue.pop(0)] if queue else []
        if len(queues[1]) + len(queues[2]) == 0:  # what is short is filled up in either order
            assert set(np.flatnonzero(chosen_QW[query] == KEPT)) == set(kept)
        assert (chosen_QW[query] == KEPT).sum() == len(kept)
        for which in (1, 2):
            taken = [place for place in order_QW[query] if sets_QW[query, place] == which and chosen_QW[query, place] == KEPT]
            assert taken == [place for place in order_QW[query] if sets_QW[query, place] == which and place in kept]


def test_the_draw_of_sets_is_even_seeded_and_apart_from_the_draw_of_candidates() -> None:
    qids = [f"1:{number}" for number in range(4000)]
    for share, negatives in ((0.5, 1), (0.3, 4), (0.0, 3), (1.0, 3)):
        from_c1_Q = draw_sets(hashes(qids, 0), negatives, share)
        assert from_c1_Q.min() >= 0 and from_c1_Q.max() <= negatives
        assert abs(from_c1_Q.mean() / negatives - share) < 0.04  # five standard deviations at the most uneven
    assert (draw_sets(hashes(qids, 0), 1, 0.5) == draw_sets(hashes(qids, 0), 1, 0.5)).all()
    assert (draw_sets(hashes(qids, 0), 1, 0.5) != draw_sets(hashes(qids, 1), 1, 0.5)).any()
    first_Q = preference(np.broadcast_to(np.arange(2), (4000, 2)), "random", hashes(qids, 0))[:, 0]
    assert abs(np.corrcoef(first_Q, draw_sets(hashes(qids, 0), 1, 0.5))[0, 1]) < 0.08


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=10, max_size=10), min_size=1, max_size=3),
    st.lists(st.integers(0, 4), min_size=4, max_size=4),
)
def test_quotas_hold(table: list[list[int]], counts: list[int]) -> None:
    quotas = {MODALITIES[code]: count for code, count in enumerate(counts) if count}
    modalities_QW = np.array(table, np.uint8)
    codes_QW = np.full(modalities_QW.shape, OPEN, np.uint8)
    codes_QW[:, -1] = NONE
    order_QW = preference(np.broadcast_to(np.arange(10), codes_QW.shape), "top", hashes(["q"] * len(table), 1))
    chosen_QW = choose_by_quota(codes_QW, modalities_QW, order_QW, quotas, lambda queries, places: np.full(len(places), KEPT, np.uint8))
    for row, chosen in zip(table, chosen_QW, strict=True):
        for code, count in enumerate(counts):
            there = [place for place in range(9) if row[place] == code]
            assert [place for place in there if chosen[place] == KEPT] == there[:count]


@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
def test_a_walk_visits_every_row_once(count: int, seed: int) -> None:
    assert sorted(walk(count, seed)) == list(range(count))
    assert list(walk(0, seed)) == []


def test_limits_by_modality_pair() -> None:
    wanted = parse({"max_similarity": {"text->image": 0.6, "text,image -> text": None, "other": 0.8}, "max_relative": {"text->text": 0.9}})
    assert wanted.max_similarity == {"text->image": 0.6, "image,text->text": None, "other": 0.8}
    pairs = {("text", "image"): 0.6, ("image,text", "text"): None, ("text", "video"): 0.8}
    assert {pair: limit_for(wanted.max_similarity, *pair) for pair in pairs} == pairs
    rules = Rules.of(wanted, "text", "image")
    np.testing.assert_array_equal(rules.similarity_M, np.array([0.8, 0.6, 0.8, 0.8], np.float32))
    np.testing.assert_array_equal(rules.below_M, np.array([1 - 0.9, np.nan, np.nan, np.nan], np.float32))
    scores = np.array([[0.75, 0.75, 0.5]])
    codes = judge(
        Lists.ranked(np.arange(3)[None], scores, GLOBAL), np.array([[0, 1, 1]], np.uint8), ragged([]), ragged([]), np.array([np.nan]), rules
    )
    assert [code == OPEN for code in codes[0]] == [True, False, True]
    assert from_words(["max_similarity={text->image: 0.6, 'image,text->text': 0.5}"]).max_similarity == {
        "text->image": 0.6,
        "image,text->text": 0.5,
    }


def test_settings_that_follow_from_others_survive_a_round_trip() -> None:
    wanted = parse({"depth": 50, "negatives": 1, "select": "random", "modality_aware": {}})
    assert (wanted.pools, wanted.max_similarity) == (("global",), None)
    assert wanted.modality_aware is not None
    assert (wanted.modality_aware.wrong_modality_share, wanted.modality_aware.right_after_rank) == (0.5, 45)
    by_quota = parse({"quotas": {"image": 1, "text": 1, "text,image": 1}, "margin": {"text->image": 0.1}})
    assert (by_quota.negatives, by_quota.quotas) == (3, {"image": 1, "text": 1, "image,text": 1})
    filtered = parse({"modality_aware": {"right_after_rank": None}, "max_similarity": 0.6})
    for one in (wanted, by_quota, filtered):
        assert parse(one.model_dump(mode="json")) == one


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modality_aware={}", "pools=[local]"], "modality_aware needs pools [global] alone"),
        (["modality_aware={}", "pools=[local, global]"], "modality_aware needs pools [global] alone"),
        (["modality_aware={}", "depth=45"], "right_after_rank=45 leaves nothing of the right modality within rank 45"),
        (["modality_aware={}", "max_rank=40"], "right_after_rank=45 leaves nothing of the right modality within rank 40"),
        (["modality_aware={right_after_rank: 3}", "min_rank=5"], "right_after_rank=3 has no effect with min_rank=5"),
        (["modality_aware={p: 1}"], "unknown key 'modality_aware.p'"),
        (["modality_aware={wrong_modality_share: 2}"], "wrong_modality_share"),
        (["modality_aware={}", "quotas={text: 1}"], "give one of them"),
        (["quotas={text: 1}", "negatives=2"], "quotas add up to 1, but negatives is 2"),
        (["quotas={text: 1}", "pools=[local]"], "quotas need the global pool"),
        (["quotas={sound: 1}"], "unknown modality 'sound'"),
        (["quotas={text: 0}"], "must be at least 1"),
        (["quotas={}"], "quotas"),
        (["quotas={'image,text': 1, 'text,image': 1}"], "names a modality twice"),
        (["max_similarity={text->sound: 0.5}"], "unknown modality 'sound'"),
        (["max_similarity={text: 0.5}"], "a pair is written"),
        (["max_similarity={text->image: 1.5}"], "max_similarity: must be a number above -1 and below 1"),
        (["max_similarity=high"], "max_similarity: must be a number above -1 and below 1"),
        (["max_relative=0"], "max_relative: must be a number above 0 and at most 1"),
        (["margin={other: -1}"], "margin: must be a number at least 0"),
        (["margin={}"], "an empty mapping limits nothing"),
        (["margin={'text->image,text': 0.1, 'text->text,image': 0.2}"], "names text->image,text twice"),
    ],
)
def test_settings_that_make_no_sense_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        from_words(words)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_runs_take_modality_aware_settings_as_rankings_of_the_whole_pool() -> None:
    for values in ({"modality_aware": {}}, {"modality_aware": {}, "pools": ["global"]}, {"quotas": {"text": 1}}):
        assert parse(values).for_runs(None).max_similarity is None
    with pytest.raises(RecipeError, match="depth has no effect with run files"):
        parse({"modality_aware": {}, "depth": 50}).for_runs(None)
    with pytest.raises(RecipeError, match="max_similarity needs scores that are cosines"):
        parse({"max_similarity": {"text->image": 0.5}}).for_runs(None)
