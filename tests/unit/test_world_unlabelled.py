"""Unlabelled positives: right answers of train queries that no list names, in the training pool only, and all of them known."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from umr.data.mbeir import MBeir
from umr.data.world import SETTINGS, iter_texts, unlabelled_positives
from umr.data.world.generator import plan
from umr.data.world.settings import BY_NAME, SCALES
from umr.data.world.truth import holds, unlabelled_for
from umr.data.world.unlabelled import SHARE
from umr.errors import DataError

SMALL = replace(SCALES["tiny"], pool=24, val=4, test=5, train=dict.fromkeys(SCALES["tiny"].train, 20), names=12)


@pytest.fixture(scope="module")
def tiny():
    return plan(SCALES["tiny"], 0)


def answers_of(query, pool):
    """Dids of all candidates that answer a query, by what the records say."""
    asked = json.loads(query["query_src_content"])
    offers = [(candidate["did"], json.loads(candidate["src_content"])) for candidate in pool]
    if "claims" in asked:
        return {did for did, offered in offers if holds(asked["claims"], offered["view"])}
    return {did for did, offered in offers if holds(offered["claims"], asked["view"])}


def listed(query):
    return {*query["pos_cand_list"]}, {*query["neg_cand_list"]}


def unlabelled_of(book, name):
    """qid -> dids."""
    found = {}
    for candidate in book.candidates[name, "train"]:
        for qid in unlabelled_for(candidate):
            found.setdefault(qid, set()).add(candidate["did"])
    return found


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_answers_of_train_queries_are_the_labelled_and_the_unlabelled_ones(tiny, name):
    book = tiny.books[BY_NAME[name].dataset]
    unlabelled = unlabelled_of(book, name)
    for query in book.queries[name, "train"][::60]:
        positives, negatives = listed(query)
        further = unlabelled.get(query["qid"], set())
        assert answers_of(query, book.candidates[name, "train"]) == positives | further
        assert not further & (positives | negatives)


@given(st.integers(0, 10**6))
@examples(max_examples=8, deadline=None)
def test_every_query_of_any_seed_has_its_answers_known(seed):
    world = plan(SMALL, seed)
    for name, setting in BY_NAME.items():
        book = world.books[setting.dataset]
        unlabelled = unlabelled_of(book, name)
        assert unlabelled.keys() <= {query["qid"] for query in book.queries[name, "train"]}
        for query in book.queries[name, "train"]:
            positives, negatives = listed(query)
            further = unlabelled.get(query["qid"], set())
            assert answers_of(query, book.candidates[name, "train"]) == positives | further
            assert not further & (positives | negatives)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_share_of_queries_and_growth_of_the_pool(tiny, name):
    book = tiny.books[BY_NAME[name].dataset]
    unlabelled = unlabelled_of(book, name)
    queries, pool = book.queries[name, "train"], book.candidates[name, "train"]
    assert len(unlabelled) / len(queries) == pytest.approx(SHARE, abs=0.02)
    assert {len(dids) for dids in unlabelled.values()} == ({1} if name == "facts_task1" else {1, 2, 3})
    added = sum(1 for candidate in pool if unlabelled_for(candidate))
    assert added <= 0.62 * (len(pool) - added)


def test_the_training_pool_grows_by_three_fifths_at_most(tiny):
    pool = [c for s in SETTINGS for c in tiny.books[s.dataset].candidates[s.name, "train"]]
    added = sum(1 for candidate in pool if unlabelled_for(candidate))
    assert 0.4 * (len(pool) - added) < added < 0.6 * (len(pool) - added)


def test_unlabelled_ones_differ_in_content(tiny):
    """No two answers of a query are the same text or the same file: they cannot be found by comparing content."""
    for name, setting in BY_NAME.items():
        book = tiny.books[setting.dataset]
        pool = {candidate["did"]: candidate for candidate in book.candidates[name, "train"]}
        unlabelled = unlabelled_of(book, name)
        for query in book.queries[name, "train"]:
            answers = [pool[did] for did in listed(query)[0] | unlabelled.get(query["qid"], set())]
            contents = {(c["txt"], c["img_path"], c.get("video_path")) for c in answers}
            assert len(contents) == len(answers)
            paths = [path for c in answers if (path := c["img_path"] or c.get("video_path"))]
            assert len(set(paths)) == len(paths) in (0, len(answers))


def test_val_and_test_have_none(tiny):
    for setting in SETTINGS:
        assert not any(map(unlabelled_for, tiny.books[setting.dataset].candidates[setting.name, "pool"]))


def test_read_from_disk(world):
    answers = unlabelled_positives(world)
    benchmark = MBeir(world)
    queries, pool = benchmark.train_queries(list(benchmark.settings("train"))), benchmark.train_pool()
    assert len(answers) / len(queries) == pytest.approx(SHARE, abs=0.01)
    for qid, dids in list(answers.items())[::50]:
        query = queries.get(qid)
        assert not dids & {*query.positives, *query.negatives}
        modality = {pool.modality(did) for did in query.positives}
        assert {pool.modality(did) for did in dids} == modality
        images = [path for did in (*query.positives, *sorted(dids)) if (path := pool.index[did]["img_path"])]
        assert len({(world / image).read_bytes() for image in images}) == len(images)
    evaluated = (world / "cand_pool/global/mbeir_union_test_cand_pool.jsonl").read_text().splitlines()
    assert not any(unlabelled_for(json.loads(line)) for line in evaluated)
    counts = json.loads((world / "world.json").read_text())["counts"]
    assert sum(row["unlabelled"] for row in counts.values()) == len(set().union(*answers.values()))


def test_no_text_for_a_tokenizer_is_of_an_unlabelled_one(world):
    pool = [json.loads(line) for line in (world / "cand_pool/global/mbeir_union_train_cand_pool.jsonl").read_text().splitlines()]
    hidden = {c["txt"] for c in pool if c["did"].startswith("2:") and c["img_path"] is None and unlabelled_for(c)}
    assert hidden and not hidden & set(iter_texts(world))


def test_no_world_no_answers(tmp_path):
    with pytest.raises(DataError, match="not a World"):
        unlabelled_positives(tmp_path)
