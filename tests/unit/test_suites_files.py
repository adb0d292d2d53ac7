"""Suites' folders that are incomplete or broken, resuming, safe reading of pickles, and the command."""

import json
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import checkpoint
from umr.cli import main
from umr.errors import DataError, RecipeError
from umr.evaluation.suites import SUITES, Wordings, evaluate_suite, open_suite
from umr.evaluation.suites.circo import submission
from umr.evaluation.suites.plain_pickle import read_plain
from umr.progress import quiet
from unit import suite_folders as folders
from unit.suite_folders import SceneEncoder

MAKERS = {
    "flickr30k": folders.five_captions,
    "sharegpt4v": folders.sharegpt4v,
    "urban1k": folders.urban1k,
    "circo": folders.circo,
    "genecis": folders.genecis,
    "visdial": folders.visdial,
    "vist": folders.vist,
    "fashioniq-rounds": folders.fashion_rounds,
    "msvd": folders.msvd,
    "ccneg": folders.ccneg,
    "sugarcrepe": folders.sugarcrepe,
    "mmeb": folders.mmeb,
}


@pytest.fixture(autouse=True)
def _silent():
    with quiet():
        yield


@pytest.mark.parametrize("name", SUITES)
def test_an_empty_folder_says_what_is_missing_and_where_it_comes_from(name: str, tmp_path: Path):
    with pytest.raises(DataError, match="missing; source: ") as error:
        open_suite(name, tmp_path)
    assert "\n" not in str(error.value) and SUITES[name].source in str(error.value)
    with pytest.raises(DataError, match="is no folder"):
        open_suite(name, tmp_path / "none")


BROKEN = [
    ("flickr30k", "flickr_text.json", "[1]", "entry 0 must be a string"),
    ("flickr30k", "flickr_text.json", '["a", "b"]', "not 5 for each picture"),
    ("flickr30k", "flickr_text.json", '["a"', "is no JSON"),
    ("sharegpt4v", "datas_for_validation.json", '[{"image_name": "../a.jpg", "caption": "x"}]', "leads out of"),
    ("sharegpt4v", "datas_for_validation.json", '[{"image_name": "a.jpg"}]', "caption must be a string, not null"),
    ("sharegpt4v", "datas_for_validation.json", "{}", "must hold a list"),
    ("urban1k", "caption/3.txt", "\nx", "first line must be the caption"),
    ("circo", "annotations/val.json", '[{"id": 0, "reference_img_id": 5, "relative_caption": "x"}]', "picture 5 is not in"),
    ("visdial", "visdial_1.0_val.json", '{"data": {"questions": [], "answers": [], "dialogs": []}}', "is empty"),
    (
        "visdial",
        "visdial_1.0_val.json",
        '{"data": {"questions": ["a"], "answers": ["b"], "dialogs": [{"image_id": 7, "dialog": [{"question": 1, "answer": 0}]}]}}',
        "question 1 is none of the 1 questions",
    ),
    ("vist", "sis/val.story-in-sequence.json", '{"annotations": [[]]}', "must be a list of one object"),
    ("fashioniq-rounds", "data/all.val.json", '[{"target": ["dress", "X"], "reference": [[0, ["a"], "B001"]]}]', "second entry of target"),
    ("genecis", "annotations/focus_object.json", '[{"target": {"val_image_id": "../x"}, "gallery": [{}]}]', "must be a number"),
    ("msvd", "raw-captions.pkl", "nonsense", "no whole pickle"),
    ("msvd", "test_list.txt", "other\n", "has no sentences of 'other'"),
    ("ccneg", "ccneg_preprocessed.pt", "nonsense", "cannot be read as plain data"),
    ("sugarcrepe", "data/swap_obj.json", '{"0": {"filename": "a.jpg", "caption": "x"}}', "negative_caption must be a string"),
    ("mmeb", "CIRR/CIRR_test.jsonl", "{}\nnonsense\n", "CIRR_test.jsonl:2: is no JSON"),
    ("mmeb", "CIRR/CIRR_test.jsonl", '{"qry_text": "a", "tgt_text": ["b"], "tgt_img_path": [""]}\n', "lists of one length"),
    ("mmeb", "CIRR/CIRR_test.jsonl", '{"tgt_text": ["b", "c"], "tgt_img_path": ["", ""]}\n', "neither text nor image"),
]


@pytest.mark.parametrize(("name", "file", "content", "message"), BROKEN)
def test_broken_annotations(name: str, file: str, content: str, message: str, tmp_path: Path):
    root = MAKERS[name](tmp_path)
    folders.write(root / file, content)
    with pytest.raises(DataError, match=message) as error:
        open_suite(name, root)
    assert str(root) in str(error.value) and "\n" not in str(error.value)


def test_missing_pictures_fail_or_are_left_out_and_stamped(tmp_path: Path):
    root = folders.five_captions(tmp_path)
    whole = evaluate_suite(SceneEncoder(), "flickr30k", root)
    (root / "images" / "3.png").unlink()
    (root / "images" / "5.png").unlink()
    with pytest.raises(DataError, match=r"3\.png: does not exist, one of 2 missing among 12 images; source: "):
        evaluate_suite(SceneEncoder(), "flickr30k", root)
    with pytest.raises(RecipeError, match="on_missing"):
        evaluate_suite(SceneEncoder(), "flickr30k", root, on_missing="pass")
    part = evaluate_suite(SceneEncoder(), "flickr30k", root, on_missing="skip")
    to_image, to_text = part.tasks
    assert (to_image.left_out, to_text.left_out) == ({"queries": 10, "candidates": 2}, {"queries": 2})
    assert (to_image.queries, to_image.candidates, to_text.candidates) == (50, 10, 60)
    assert part.left_out == 14 and "PARTIAL: 14" in str(part) and json.loads(part.to_json())["tasks"][0]["left_out"]["queries"] == 10
    assert whole.left_out == 0 and "image 3" not in to_image.ranked.dids["caption 0"] and "caption 15" not in to_image.ranked.dids
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no query is left"):
        evaluate_suite(SceneEncoder(), "flickr30k", root, on_missing="skip")


def test_circo_leaves_out_queries_with_a_missing_answer(tmp_path: Path):
    root = folders.circo(tmp_path)
    record = json.loads((root / "annotations" / "val.json").read_text())[8]
    gone = next(id for id in record["gt_img_ids"] if id != record["reference_img_id"])
    (root / "COCO2017_unlabeled" / "unlabeled2017" / f"{gone:012d}.jpg").unlink()
    val, test = evaluate_suite(SceneEncoder(), "circo", root, on_missing="skip").tasks
    assert "8" not in val.qids and val.left_out["candidates"] == 1 == test.left_out["candidates"]


def test_an_interrupted_evaluation_goes_on_and_changed_data_are_embedded_anew(tmp_path: Path):
    root, work = folders.sharegpt4v(tmp_path / "data"), tmp_path / "work"
    with pytest.raises(RuntimeError):
        evaluate_suite(SceneEncoder(fail_at_call=2), "sharegpt4v", root, work)
    encoder = SceneEncoder()
    result = evaluate_suite(encoder, "sharegpt4v", root, work)
    assert encoder.calls == [9, 9], "two of four stores were there"
    again = SceneEncoder()
    assert evaluate_suite(again, "sharegpt4v", root, work).to_json() == result.to_json() and again.calls == []
    records = json.loads((root / "datas_for_validation.json").read_text())
    records[0]["caption"] = "something else"
    folders.write(root / "datas_for_validation.json", records)
    assert evaluate_suite(again, "sharegpt4v", root, work).data != result.data and len(again.calls) == 4
    other = SceneEncoder("other")
    assert evaluate_suite(other, "sharegpt4v", root, work).fingerprint == other.fingerprint and len(other.calls) == 4


def test_misuse(tmp_path: Path):
    root, own = folders.urban1k(tmp_path / "data"), tmp_path / "own.yaml"
    with pytest.raises(RecipeError, match="there is no suite 'urban2k'"):
        open_suite("urban2k", root)
    with pytest.raises(RecipeError, match="needs a folder"):
        evaluate_suite(SceneEncoder(), "urban1k")
    with pytest.raises(RecipeError, match="no effect on a suite that is open"):
        evaluate_suite(SceneEncoder(), open_suite("urban1k", root), root)
    with pytest.raises(RecipeError, match="needs the test queries"):
        submission(evaluate_suite(SceneEncoder(), "urban1k", root))
    for text, message in (
        ("urban2k: {}", "no suite 'urban2k'"),
        ("urban1k: {video: x}", "no task 'video'"),
        ("urban1k: {text -> image: 3}", "must be an instruction or null"),
        ("- a", "must map suites"),
        ("a: [", "is no YAML"),
    ):
        own.write_text(text)
        with pytest.raises(RecipeError, match=message):
            Wordings.load(own)
    with pytest.raises(RecipeError, match="cannot be read"):
        Wordings.load(tmp_path / "none.yaml")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=40, deadline=None)
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_pickles_are_read(tmp_path_factory: pytest.TempPathFactory, value, protocol: int):
    path = tmp_path_factory.mktemp("pickle") / "a.pkl"
    repeated = [value, value, "x" * 300, list(range(1200))]  # memo entries, and more than one batch of a list
    path.write_bytes(pickle.dumps(repeated, protocol=protocol))
    assert read_plain(path) == repeated


class Bad:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("value", [Bad(), OrderedDict(a=1), Path("x"), {"a": {1, 2}}])
def test_other_pickles_are_refused_and_nothing_runs(value, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([value]))
    with pytest.raises(DataError, match="not read for safety"):
        read_plain(path)
    assert "this ran" not in capsys.readouterr().out
    path.write_bytes(pickle.dumps(["abc"] * 9)[:-3])
    with pytest.raises(DataError, match="no whole pickle"):
        read_plain(path)


def test_the_command_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    urban, circo = folders.urban1k(tmp_path / "urban"), folders.circo(tmp_path / "circo", images=20, queries=3)
    out = [*("--json", str(tmp_path / "r.json")), *("--trec", str(tmp_path / "runs")), *("--circo-submission", str(tmp_path / "s.json"))]
    words = [
        "suites",
        "--model",
        str(checkpoint("qwen3-vl")),
        "--work",
        str(tmp_path / "work"),
        "--suite",
        f"urban1k={urban}",
        "--suite",
        f"circo={circo}",
        *out,
    ]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "this model" in shown and "U-MARVEL" in shown and "map@5" in shown
    content = json.loads((tmp_path / "r.json").read_text())
    assert [one["suite"] for one in content["suites"]] == ["urban1k", "circo"]
    assert content["suites"][0]["model"] == content["suites"][1]["model"]
    assert len(json.loads((tmp_path / "s.json").read_text())["2"]) == 20
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_mistakes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folders.urban1k(tmp_path)
    for words, message in (
        (["--suite", "urban1k"], "must be NAME=FOLDER"),
        (["--suite", f"urban1k={root}", "--suite", f"urban1k={root}"], "given twice"),
        (["--suite", f"urban1k={root}", "--circo-submission", "x.json"], "no effect without --suite circo"),
        (["--suite", f"vist={root}"], "source: visionandlanguage.net"),
        (["--suite", f"urban1k={root}", "--weight", "1"], "--weight has no effect without --rerank"),
    ):
        assert main(["suites", "--model", "none", *words]) == 1
        assert message in capsys.readouterr().err
    assert main(["suites", "--list"]) == 0
    assert all(name in capsys.readouterr().out for name in ["fashioniq-rounds"])
