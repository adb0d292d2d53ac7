"""World's text-retrieval set: reproducible, true, apart from the rest of World, and not to be solved by matching words."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.data.text_retrieval import TextRetrieval
from umr.data.world import text_retrieval as text
from umr.data.world.households import CHANGES, LACKING, VISITS, YARD, Condition, draw_family, everything, grade, true_of
from umr.data.world.random_stream import Stream
from umr.data.world.scene import Kind
from umr.data.world.settings import SCALES
from umr.errors import DataError

SMALL = replace(SCALES["tiny"], names=12)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("w")
    text.add_text_retrieval(folder, SMALL, "tiny", 0)
    return folder / text.FOLDER


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def judged(root, split):
    found = {}
    for line in (root / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]:
        qid, did, value = line.split("\t")
        found.setdefault(qid, {})[did] = int(value)
    return found


def test_the_set_of_a_version_stays_as_it_is(root):
    """When this fails, the same seed gives other bytes than before: raise `TEXT_VERSION` and renew the digest."""
    about = json.loads((root / text.MARK).read_text())
    assert (about["version"], about["sha256"][:16]) == (1, "45b1631ac66f3b5a")
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != text.MARK}
    lines = "".join(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    assert hashlib.sha256(lines.encode()).hexdigest() == about["sha256"]


def test_another_seed_gives_another_set(root, tmp_path):
    text.add_text_retrieval(tmp_path, SMALL, "tiny", 1)
    assert (tmp_path / text.FOLDER / "queries.jsonl").read_bytes() != (root / "queries.jsonl").read_bytes()


def test_it_is_added_once(root, tmp_path):
    text.add_text_retrieval(tmp_path, SMALL, "tiny", 0)
    mark = tmp_path / text.FOLDER / text.MARK
    assert mark.read_bytes() == (root / text.MARK).read_bytes()
    before = mark.stat().st_mtime_ns
    text.add_text_retrieval(tmp_path, SMALL, "tiny", 0)
    assert mark.stat().st_mtime_ns == before
    mark.write_text('{"version": 0}')
    with pytest.raises(DataError, match="has version 0, not 1; remove this folder"):
        text.add_text_retrieval(tmp_path, SMALL, "tiny", 0)


def test_a_world_from_before_gets_it_and_nothing_else_changes(own_world, world):
    import shutil

    import little_world

    def others(folder):
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and text.FOLDER not in path.parts}

    shutil.rmtree(own_world / text.FOLDER)
    before = others(own_world)
    assert little_world.make(own_world).reused
    assert others(own_world) == before
    for name in ("corpus.jsonl", "queries.jsonl", text.MARK):
        assert (own_world / text.FOLDER / name).read_bytes() == (world / text.FOLDER / name).read_bytes()


def test_the_reader_takes_it(root):
    tree = TextRetrieval(root)
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        assert tree.check(split).ok
        assert len(tree.queries(tree.setting, split)) == len(judged(root, name))
    assert tree.train_queries()[0].instructions == text.INSTRUCTIONS
    assert all(query.positives and len(query.negatives) == text.NEAR for query in tree.train_queries())


def test_splits_share_no_person(root):
    people = {one["_id"]: set(one["metadata"]["people"]) for one in rows(root / "corpus.jsonl")}
    found = [{name for dids in judged(root, split).values() for did in dids for name in people[did]} for split in text.SHARES]
    assert all(found) and not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]


def told(record):
    """What a document's text says, from its metadata: habits of people, and how many of which kinds are in the yard."""
    about = record["metadata"]
    habits = {(name, topic): value for name, topic, value in about["habits"] if name in about["told"]}
    yard = dict(map(tuple, about["yard"])) if YARD in about["told"] else None
    return habits, yard, about["lacking"] if LACKING in about["told"] else None


def answers(claims, record):
    """The grade of a document for a question, by another way than the generator's."""
    habits, yard, lacking = told(record)
    found = []
    for who, topic, value, holds, kind, number in claims:
        if kind is None:
            found.append((habits[who, topic] == value) == holds if (who, topic) in habits else None)
        else:
            name = f"{kind[0]} {kind[1]}"
            found.append(yard.get(name, 0) == number if yard is not None else number == 0 if name == lacking else None)
    return 0 if False in found else 2 if None not in found else int(True in found)


@pytest.mark.parametrize("split", text.SHARES)
def test_every_judgement_is_right_and_none_is_missing(root, split):
    corpus, queries = rows(root / "corpus.jsonl"), {one["_id"]: one for one in rows(root / "queries.jsonl")}
    by_person = {}
    for record in corpus:
        for name in record["metadata"]["people"]:
            by_person.setdefault(name, []).append(record)
    for qid, dids in judged(root, split).items():
        claims = queries[qid]["metadata"]["claims"]
        named = {name for name in by_person if name in queries[qid]["text"]}
        assert named
        house = [record for record in by_person[min(named)] if named <= set(record["metadata"]["people"])]
        right = {record["_id"]: answers(claims, record) for record in house}
        assert {did: value for did, value in dids.items() if value} == {did: value for did, value in right.items() if value}
        days = {record["title"] for record in house if right[record["_id"]] == 2}
        assert len(days) == 1, "another day answers, too"
        assert all(right.get(did, 0) == value for did, value in dids.items())


def test_texts_say_what_the_metadata_say(root):
    for record in rows(root / "corpus.jsonl"):
        habits, yard, lacking = told(record)
        spoken = record["text"]
        assert all(name in spoken for name in record["metadata"]["people"])
        for name, topic in habits:
            assert habits[name, topic] in spoken
        unsaid = {value for _, _, value in record["metadata"]["habits"]} - set(habits.values())
        assert not any(f" {value} " in spoken or f" {value}." in spoken for value in unsaid)
        words = ("no", "one", "two", "three", "four")
        for kind, number in (yard or {}).items():
            assert f"{words[number]} {kind.split()[0]}" in spoken
        assert (lacking is None) == (" no " not in spoken)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_questions_take_all_their_conditions(seed):
    family = draw_family(Stream(seed), ["Ann", "Bob"], ["Red", "Sol"], 2)
    assert [len(visits) for visits in family.visits] == [VISITS, VISITS]
    assert {word for visits in family.visits[:1] for name in visits[0].people for word in name.split()} == {"Ann", "Bob", "Red", "Sol"}
    assert {name for visit in family.visits[0] for name in visit.people}.isdisjoint(family.visits[1][0].people)
    for (house, number), asked in family.questions.items():
        visit, visits = family.visits[house][number], family.visits[house]
        assert len(asked) == 2 and set(asked[0]) != set(asked[1])
        for conditions in asked:
            hold = [sum(all(true_of(one, other, everything(other)) for one in some) for other in visits) for some in (
                conditions, *(conditions[:place] + conditions[place + 1 :] for place in range(len(conditions)))
            )]  # fmt: skip
            assert all(true_of(one, visit, everything(visit)) for one in conditions)
            assert hold[0] == 1 and min(hold[1:]) > 1
    days = [visit.day for visit in family.visits[0]]
    assert len(set(days)) == VISITS and max(CHANGES) == 3


def test_grades():
    from umr.data.world.households import Visit

    ring, star = Kind("red", "ring"), Kind("blue", "star")
    visit = Visit(("A B", "C D"), "Monday", {("A B", "pet"): "cat", ("A B", "drink"): "tea"}, {ring: 2}, star)
    cat, dog = Condition("A B", "pet", "cat"), Condition("A B", "pet", "dog")
    two, none = Condition(kind=ring, number=2), Condition(kind=star)
    assert [one.sort for one in (cat, dog._replace(holds=False), two, none)] == ["is", "not", "count", "not"]
    everywhere, person, lacks = frozenset({"A B", YARD}), frozenset({"A B"}), frozenset({LACKING})
    assert grade((cat, two), visit, everywhere) == 2 and grade((cat, none), visit, everywhere) == 2
    assert grade((cat, two), visit, person) == 1 and grade((two, none), visit, lacks) == 1
    assert grade((dog, two), visit, everywhere) == 0 and grade((dog, two), visit, person) == 0
    assert grade((two,), visit, person) == 0 and grade((dog._replace(holds=False), two), visit, everywhere) == 2
    assert true_of(Condition(kind=ring), visit, lacks) is None


def bm25(corpus, question):
    """Documents by Okapi's BM25 (k1 0.9, b 0.4)."""
    counts, mean = [Counter(document) for document in corpus], sum(map(len, corpus)) / len(corpus)
    frequency = Counter(word for one in counts for word in one)

    def of_word(word, place):
        rare = math.log(1 + (len(corpus) - frequency[word] + 0.5) / (frequency[word] + 0.5))
        return rare * counts[place][word] * 1.9 / (counts[place][word] + 0.9 * (0.6 + 0.4 * len(corpus[place]) / mean))

    def score(place):
        return sum(of_word(word, place) for word in question)

    return sorted(range(len(corpus)), key=lambda place: -score(place))[:10]


def test_matching_words_does_not_solve_it(root):
    records, queries = rows(root / "corpus.jsonl"), {one["_id"]: one["text"] for one in rows(root / "queries.jsonl")}
    corpus = [words(f"{one['title']} {one['text']}") for one in records]
    scores = []
    for qid, dids in judged(root, "test").items():
        gains = [dids.get(records[place]["_id"], 0) for place in bm25(corpus, words(queries[qid]))]
        ideal = sorted(dids.values(), reverse=True)[:10]
        scores.append(sum(g / math.log2(k + 2) for k, g in enumerate(gains)) / sum(g / math.log2(k + 2) for k, g in enumerate(ideal)))
    assert len(scores) >= 24 and 0.2 < sum(scores) / len(scores) < 0.75


def words(said):
    return "".join(one if one.isalnum() else " " for one in said.lower()).split()


def test_size_grows_with_the_world():
    counts = [text.families(scale) for scale in SCALES.values()]
    assert counts == [192, 192, 384, 960] and text.families(SMALL) == 12
    assert all(4 * count <= SCALES[size].names ** 2 for count, size in zip(counts, SCALES, strict=True))
