"""The plan of a World: one right answer to every query, splits apart, sizes as promised."""

import json
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.data.world.book import Book, others, round_robin
from umr.data.world.clips import Clip
from umr.data.world.draw import Picture
from umr.data.world.film import describe_clip, random_clip
from umr.data.world.generator import plan
from umr.data.world.pretraining import plan_captions, plan_text_pairs
from umr.data.world.random_stream import Stream
from umr.data.world.registry import Registry
from umr.data.world.scene import alter, random_scene
from umr.data.world.settings import BY_NAME, SCALES, SETTINGS, SPLITS
from umr.data.world.truth import RELATIONS, holds, related, view_of
from umr.data.world.wording import by_count, by_position, by_relation, describe


@pytest.fixture(scope="module")
def tiny():
    world = plan(SCALES["tiny"], 0)
    world.text_pairs, world.captions = plan_text_pairs(world), plan_captions(world)
    return world


def test_settings_cover_all_task_types_with_four_instructions_each():
    assert len(SETTINGS) >= 10
    assert {setting.task_id for setting in SETTINGS} == {0, 1, 2, 3, 4, 6, 7, 8, 9}
    keys = [(s.dataset_id, s.query_modality, s.candidate_modality) for s in SETTINGS]
    assert len(set(keys)) == len(keys)  # the key that M-BEIR readers look instructions up by
    assert len({line for s in SETTINGS for line in s.instructions}) == 4 * len(SETTINGS)
    assert all("_" not in s.dataset and s.dataset.islower() for s in SETTINGS)


def test_sizes_of_tiny(tiny):
    for setting in SETTINGS:
        book = tiny.books[setting.dataset]
        assert len(book.candidates[setting.name, "pool"]) >= 500
        assert len(book.queries[setting.name, "val"]) == 100
        assert len(book.queries[setting.name, "test"]) == 150
        assert len(book.queries[setting.name, "train"]) == SCALES["tiny"].train[setting.name]
    assert 12_000 <= sum(SCALES["tiny"].train.values()) <= 16_000
    assert len(tiny.jobs) < 28_000
    assert len(tiny.captions) == 6000 == len(tiny.text_pairs)


def true_of(query, candidate):
    """Whether the candidate answers the query, by what their records say."""
    asked, offered = json.loads(query["query_src_content"]), json.loads(candidate["src_content"])
    if "claims" in asked:
        return holds(asked["claims"], offered["view"])
    return holds(offered["claims"], asked["view"])


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_positives_are_all_that_answers_a_query(tiny, name):
    book = tiny.books[BY_NAME[name].dataset]
    asked = [json.loads(q["query_src_content"]) for split in ("val", "test") for q in book.queries[name, split]]
    pool = [(c["did"], json.loads(c["src_content"])) for c in book.candidates[name, "pool"]]
    positives = [q["pos_cand_list"] for split in ("val", "test") for q in book.queries[name, split]]
    for query, right in zip(asked, positives, strict=True):
        if "claims" in query:
            answers = [did for did, offered in pool if holds(query["claims"], offered["view"])]
        else:
            answers = [did for did, offered in pool if holds(offered["claims"], query["view"])]
        assert answers == right
    texts = [(q["query_txt"], q["query_img_path"]) for split in ("val", "test") for q in book.queries[name, split]]
    assert len(set(texts)) == len(texts)


def test_some_settings_have_several_positives(tiny):
    several = {s.name for s in SETTINGS if any(len(query["pos_cand_list"]) > 1 for query in tiny.books[s.dataset].queries[s.name, "test"])}
    assert several == {"scenes_task3", "twins_task4"}


def test_negatives_of_train_queries_are_wrong_answers_from_the_train_pool(tiny):
    for name, setting in BY_NAME.items():
        book = tiny.books[setting.dataset]
        pool = {c["did"]: c for c in book.candidates[name, "train"]}
        for query in book.queries[name, "train"][::7]:
            assert query["neg_cand_list"]
            assert all(true_of(query, pool[did]) for did in query["pos_cand_list"])
            assert not any(true_of(query, pool[did]) for did in query["neg_cand_list"])
        assert not any(query["neg_cand_list"] for split in ("val", "test") for query in book.queries[name, split])


def shown(content):
    """What a picture or clip shows, whatever its style and variation."""
    if isinstance(content, Clip):
        return content
    if content.word is not None:  # products lie anywhere: kind, number and maker make one
        return (content.scene[0].kind, len(content.scene), content.word)
    return (content.scene, content.big)


def test_no_scene_is_in_two_splits(tiny):
    splits = defaultdict(set)
    for job in tiny.jobs:
        split = "captions" if job.path.startswith("captions/") else job.path.split("/")[2]
        splits[split].add(shown(job.content))
    assert {"train", "val", "test", "captions"} == set(splits)
    for a, b in (("train", "val"), ("train", "test"), ("val", "test"), ("captions", "val"), ("captions", "test")):
        assert not splits[a] & splits[b]


@pytest.mark.parametrize("tag", ["name", "pair"])
def test_people_and_pairs_of_creatures_stay_in_their_split(tiny, tag):
    found = {}
    for split in SPLITS:
        claims = [
            claim
            for setting in SETTINGS
            for query in tiny.books[setting.dataset].queries[setting.name, split]
            for claim in json.loads(query["query_src_content"]).get("claims", [])
        ]
        found[split] = {claim[2] for claim in claims if claim[:2] == ["tag", tag]}
        assert found[split]
    assert not found["train"] & found["val"] | found["train"] & found["test"] | found["val"] & found["test"]


def test_a_list_of_positions_is_true_of_no_other_dataset_s_picture(tiny):
    views = [
        view_of(job.content.scene)
        for job in tiny.jobs
        if isinstance(job.content, Picture) and "/scenes_images/" not in job.path and job.content.word is None and job.content.big is None
    ]
    by_thing = defaultdict(list)
    for view in views:
        for thing in view["things"]:
            by_thing[tuple(thing)].append(view)
    for split in SPLITS:
        for query in tiny.books["scenes"].queries["scenes_task0", split]:
            claims = json.loads(query["query_src_content"])["claims"]
            if claims[0][0] == "at":
                assert not any(holds(claims, view) for view in by_thing[tuple(claims[0][1:])])


def test_given_pictures_are_in_the_pool_of_edits_and_moves(tiny):
    for dataset in ("edits", "moves"):
        name = f"{dataset}_task7"
        paths = {c["img_path"] for c in tiny.books[dataset].candidates[name, "pool"]}
        assert all(q["query_img_path"] in paths for q in tiny.books[dataset].queries[name, "test"])


def test_the_question_needs_the_picture_and_the_picture_the_question(tiny):
    """In `field`, one question has many answers over pictures; one picture has many over questions."""
    queries = [q for split in SPLITS for q in tiny.books["field"].queries["field_task6", split]]
    by_text, pairs = defaultdict(set), defaultdict(set)
    for query in queries:
        by_text[query["query_txt"]].add(query["pos_cand_list"][0])
        tags = {claim[1]: claim[2] for claim in json.loads(query["query_src_content"])["claims"]}
        pairs[tags["pair"]].add(tags["habit"])
    assert sum(len(answers) > 1 for answers in by_text.values()) > 0.9 * len(by_text)
    assert sum(len(habits) > 1 for habits in pairs.values()) > 0.9 * len(pairs)


def test_text_pairs_differ_and_say_different_things(tiny):
    assert all(len({*row}) == 3 for row in tiny.text_pairs)


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_captions_are_true_of_their_scene_and_position_lists_of_no_altered_one(seed, n):
    stream = Stream(seed)
    scene = random_scene(stream, n)
    changed = alter(stream, scene)
    assert len(set(scene) ^ set(changed)) == 2
    for caption in (describe(stream, scene), by_position(stream, scene), by_count(stream, scene), by_relation(stream, scene)):
        if caption is not None:
            assert holds(caption.claims, view_of(scene))
    assert not holds(by_position(stream, scene).claims, view_of(changed))


@given(st.integers(0, 8), st.integers(0, 8))
def test_relations_are_opposites(a, b):
    true = [name for name in RELATIONS if related(name, a, b)]
    mirrored = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert sorted(mirrored[name] for name in true) == sorted(name for name in RELATIONS if related(name, b, a))
    assert bool(true) == (a != b)


@given(st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_what_stays_in_a_clip_is_never_in_the_way(seed):
    stream = Stream(seed)
    clip = random_clip(stream, 0.0)
    assert clip.still.cell not in clip.act.cells
    assert clip.act.kind.colour in describe_clip(stream, clip)
    assert f"turns {clip.act.kind.colour}" != clip.act.motion


def test_registry_gives_each_key_once_and_guards_closed_ones():
    registry = Registry()
    assert registry.claim([("a", "b"), ("a", "c")], closed=True)
    assert not registry.claim([("a", "b")])  # taken
    assert not registry.claim([("a", "b", "d")])  # a caption that lists a and b would be true of it
    assert not registry.claim([("x", "y"), ("x", "y")])  # twice in one family
    assert registry.claim([("x", "y", "z")])
    assert not registry.claim([("p", "q"), ("a", "c")])
    assert registry.claim([("p", "q")])  # the refused family took nothing
    assert registry.claim([("l", "m", "n")], closed=True)
    assert not registry.claim([("l", "n")], closed=True)  # its caption would be true of the three
    assert registry.claim([("l", "n")])


def test_queries_go_round_the_families():
    assert round_robin(2, 3, 5) == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    assert len(round_robin(2, 3, 99)) == 6
    assert others(["a", "b", "c"], 1) == ["a", "c"]


def test_media_paths_are_sharded(tiny):
    world = type(tiny)(0, tiny.scale)
    book = Book(world, "scenes")
    paths = [book.draw("train", Picture("scenes", ())) for _ in range(1001)]
    assert paths[999].startswith("mbeir_images/scenes_images/train/000/")
    assert paths[1000].startswith("mbeir_images/scenes_images/train/001/")
    assert {path[-3:] for path in paths} == {"jpg", "png"}
