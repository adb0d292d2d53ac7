"""World's statements: every answer is true by a reading of its own, half of them are yes, and nothing else of World changes."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from umr.data.statements import Statements, statement_fault
from umr.data.world.draw import Picture
from umr.data.world.generator import _generate, plan
from umr.data.world.pretraining import plan_captions, plan_text_pairs
from umr.data.world.settings import SCALES, SPLITS
from umr.data.world.statements import QUESTIONS, plan_statements
from umr.data.world.truth import holds, view_of
from umr.data.world.wording import SYNONYMS
from umr.errors import DataError
from umr.progress import quiet

SMALL = replace(
    SCALES["tiny"], pool=60, val=12, test=8, train=dict.fromkeys(SCALES["tiny"].train, 30), names=12, captions=40, text_pairs=30
)
CELL = "(top left|top center|top right|middle left|center|middle right|bottom left|bottom center|bottom right)"
KIND = r"(\w+ \w+)"
NUMBERS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4}


@pytest.fixture(scope="module")
def world() -> Any:
    made = plan(SMALL, 0)
    plan_text_pairs(made), plan_captions(made)
    return made


@pytest.fixture(scope="module")
def rows(world: Any) -> dict[str, list[dict[str, Any]]]:
    return plan_statements(world)


@pytest.fixture(scope="module")
def scenes(world: Any) -> dict[str, Any]:
    return {job.path: job.content.scene for job in world.jobs if isinstance(job.content, Picture)}


def name(words: str) -> str:
    """The full name of a thing from what a text calls it."""
    colour, shape = words.split()
    for known, other in SYNONYMS.items():
        shape = known if shape in (other, other + "s", other + "es") else shape
    return f"{colour} {re.sub('(?<=cross)es$|(?<!s)s$', '', shape)}"


def claims(text: str) -> list[list[Any]]:
    """What a text says, read by patterns of this test's own."""
    if found := re.findall(rf"(no|one|two|three|four) {KIND}", text):
        return [["count", name(kind), NUMBERS[number]] for number, kind in found]
    words = {"to the left of": "left of", "left of": "left of", "to the right of": "right of", "right of": "right of"}
    words |= {"above": "above", "higher than": "above", "below": "below", "lower than": "below"}
    if found := re.search(rf"an? {KIND} (?:is )?({'|'.join(words)}) an? {KIND}", text):
        return [[words[found[2]], name(found[1]), name(found[3])]]
    if found := re.findall(rf"in the {CELL} an? {KIND}", text):
        return [["at", name(kind), cell] for cell, kind in found]
    found = re.findall(rf"{KIND} (?:in the |at the )?{CELL}", text)
    assert found, text
    return [["at", name(kind), cell] for kind, cell in found]


def texts_of(row: dict[str, Any]) -> list[str]:
    """Its texts, a line each, without the question."""
    lines = [line for part in row["parts"] if "text" in part for line in part["text"].split("\n")]
    assert lines[-1] in QUESTIONS[row["kind"]]
    return lines[:-1]


def row_question(row: dict[str, Any]) -> str:
    return str(next(part["text"] for part in reversed(row["parts"]) if "text" in part)).split("\n")[-1]


def images_of(row: dict[str, Any]) -> list[str]:
    return [part["image"] for part in row["parts"] if "image" in part]


@pytest.mark.parametrize("split", SPLITS)
def test_descriptions_are_true_or_not(split: str, rows: Any, scenes: Any):
    for row in rows[split]:
        if row["kind"] == "describes":
            (text,), (path,) = texts_of(row), images_of(row)
            assert holds(claims(text), view_of(scenes[path])) == row["answer"], row


@pytest.mark.parametrize("split", SPLITS)
def test_texts_tell_of_one_scene_or_not(split: str, rows: Any):
    for row in rows[split]:
        if row["kind"] == "texts":
            first, second = texts_of(row)
            things = [claim[1:] for claim in claims(first)]
            assert first != second and all(claim[0] == "at" for claim in claims(first))
            assert holds(claims(second), {"things": things, "tags": {}}) == row["answer"], row


@pytest.mark.parametrize("split", SPLITS)
def test_pictures_show_the_same_or_not(split: str, rows: Any, scenes: Any):
    near = 0
    for row in rows[split]:
        if row["kind"] == "same":
            first, second = (scenes[path] for path in images_of(row))
            assert len(set(images_of(row))) == 2
            assert (first == second) == row["answer"]
            near += row.get("miss") == "near" and len(set(first) & set(second)) >= len(first) - 1
    assert near >= 0.9 * sum(row["kind"] == "same" and row.get("miss") == "near" for row in rows[split])


@pytest.mark.parametrize("split", SPLITS)
def test_changes_lead_there_or_not(split: str, rows: Any, scenes: Any, world: Any):
    wanted = {}
    for dataset in ("edits", "moves"):
        book = world.books[dataset]
        setting = f"{dataset}_task7"
        pool = {record["did"]: record["img_path"] for record in book.candidates[setting, "train" if split == "train" else "pool"]}
        for query in book.queries[setting, split]:
            wanted[query["query_img_path"], query["query_txt"]] = scenes[pool[query["pos_cand_list"][0]]]
    for row in rows[split]:
        if row["kind"] == "change":
            (text,), (before, after) = texts_of(row), images_of(row)
            assert (scenes[after] == wanted[before, text]) == row["answer"]
            assert row.get("miss") != "near" or after.split("/")[1] == before.split("/")[1]


def test_half_are_true_and_the_others_near_and_easy(rows: Any):
    assert [len(rows[split]) for split in SPLITS] == [4 * 80, 4 * 12, 4 * 24]
    for split in SPLITS:
        counts = Counter((row["kind"], row["answer"], row.get("miss")) for row in rows[split])
        each = len(rows[split]) // 16
        assert counts == {
            (kind, answer, miss): times * each
            for kind in QUESTIONS
            for answer, miss, times in ((True, None, 2), (False, "near", 1), (False, "easy", 1))
        }
        assert len({row["id"] for row in rows[split]}) == len(rows[split])


def test_a_right_and_a_wrong_statement_are_about_one_subject(rows: Any):
    for split in SPLITS:
        for right, wrong in zip(rows[split][::2], rows[split][1::2], strict=True):
            assert right["group"] == wrong["group"] and (right["answer"], wrong["answer"]) == (True, False)
            assert right["parts"] != wrong["parts"] and len(right["parts"]) == len(wrong["parts"])
            first, other = (images_of(row) or [texts_of(row)[0]] for row in (right, wrong))
            assert first[0] == other[0]
            assert row_question(right) == row_question(wrong)
        assert len({row["group"] for row in rows[split]}) == len(rows[split]) / 2


def test_a_split_shows_its_own_pictures(rows: Any):
    for split in SPLITS:
        folders = {path.split("/")[2] for row in rows[split] for path in images_of(row) if not path.startswith("captions/")}
        assert folders == {split}
    assert any(path.startswith("captions/") for row in rows["train"] for path in images_of(row))


def test_nothing_else_changes_and_a_seed_gives_the_same(world: Any, rows: Any):
    before = repr((world.books["edits"].queries, world.jobs))
    assert plan_statements(world) == rows
    assert repr((world.books["edits"].queries, world.jobs)) == before
    other = plan(SMALL, 1)
    plan_captions(other)
    assert plan_statements(other)["test"] != rows["test"]


def test_a_world_on_disk_has_them(tmp_path: Path):
    with quiet():
        root = _generate(tmp_path / "w", "tiny", SMALL, 0, 1).root
    for split in SPLITS:
        statements = Statements(root / "statements" / f"{split}.jsonl", root)
        statements.check()
        first = statements[0]
        assert first.kind == "describes" and first.answer and first.message.modality == "image,text"
        assert all(part.source.is_file() for part in statements[2].message.parts if part.modality == "image")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"parts": [], "answer": True}, "list that is not empty"),
        ({"parts": [{"text": ""}], "answer": True}, "a part must be"),
        ({"parts": [{"sound": "x"}], "answer": True}, "'sound'"),
        ({"parts": [{"image": "../x.png"}], "answer": True}, "leads out"),
        ({"parts": [{"image": "/x.png"}], "answer": True}, "leads out"),
        ({"parts": [{"text": "x"}], "answer": "True"}, "true or false"),
        ({"parts": [{"text": "x"}], "answer": True, "kind": 1}, "must be strings"),
    ],
)
def test_malformed_rows(row: dict[str, Any], what: str):
    fault = statement_fault(row)
    assert fault is not None and what in fault[1]


def test_another_folder_of_images_is_noticed(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text('{"id": "1", "parts": [{"image": "x.png"}], "answer": false}\n')
    with pytest.raises(DataError, match="say with `images` where image paths start"):
        Statements(tmp_path / "x.jsonl", tmp_path).check()
