"""`umr check`: the golden items, the comparison, and every engine that can run here."""

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import embedder, text_checkpoint
from umr.cli import main
from umr.engines.answers import Answers
from umr.engines.checking import check
from umr.engines.comparing import TOP, Bounds, compare
from umr.engines.golden import Golden, golden_items
from umr.engines.http_api import HttpApi
from umr.engines.local import PlainSentenceTransformer
from umr.errors import ModelError, RecipeError
from umr.items import Item
from umr.serving.settings import ServerSettings
from unit.engines.vllm_like import MODELS, Refused, exported, serving
from unit.serving.live_server import KEY, running

FOLDER = "qwen3-vl"
STRICT = Bounds(1e-6, -1)


@pytest.fixture(scope="module", autouse=True)
def no_proxy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as training saves it, whose instruction is left out of the mean."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    embedder(FOLDER).save(folder)
    return folder


def test_golden_items_are_the_same_for_everyone(tmp_path: Path):
    (tmp_path / "other").mkdir()
    first, second = golden_items(tmp_path), golden_items(tmp_path / "other")
    assert [(row.name, row.side, row.instruction, row.item.digest) for row in first] == [
        (row.name, row.side, row.instruction, row.item.digest) for row in second
    ]
    assert len({row.name for row in first}) == len(first)
    assert {row.item.modality for row in first} == {"text", "image", "image,text", "video", "video,text"}
    assert {row.item.modality for row in first if row.instruction} == {"text", "image", "image,text", "video"}
    lengths = sorted(len(row.item.text) for row in first if row.item.modality == "text")
    assert lengths[0] < 10 and lengths[-1] > 500
    assert sum(row.side == "candidate" for row in first) > TOP


def test_an_engine_that_agrees_and_one_that_does_not(tmp_path: Path):
    rows = golden_items(tmp_path)
    generator = np.random.default_rng(0)
    vectors = {row.name: unit(generator.normal(size=16)) for row in rows}
    same = compare(rows, Answers(vectors), "same", {}, Answers(dict(vectors)), STRICT)
    assert same.passes and same.overlap == 1 and min(same.cosines.values()) == pytest.approx(1)
    other = compare(rows, Answers(vectors), "other", {}, Answers({name: unit(generator.normal(size=16)) for name in vectors}), STRICT)
    assert not other.passes and other.overlap is not None and other.overlap < 0.9 and min(other.cosines.values()) < 0.9
    longer = compare(rows, Answers(vectors), "longer", {}, Answers({name: 2 * vector for name, vector in vectors.items()}), STRICT)
    assert not longer.passes and longer.overlap == 1 and min(longer.cosines.values()) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 7), st.integers(0, 15), st.floats(1e-6, 0.5), st.sampled_from([-1, 1]))
def test_the_largest_difference_is_found_and_judged(row: int, place: int, size: float, sign: int):
    rows = [Golden(str(number), Item.of(text="a")) for number in range(8)]
    right = {one.name: np.linspace(-0.4, 0.4, 16) + number / 100 for number, one in enumerate(rows)}
    wrong = {name: vector.copy() for name, vector in right.items()}
    wrong[str(row)][place] += sign * size
    found = compare(rows, Answers(right), "e", {}, Answers(wrong), Bounds(size * 1.01, -1))
    assert found.passes and found.worst == str(row) and found.differences[found.worst] == pytest.approx(size)
    found.bounds = Bounds(size * 0.99, -1)
    assert not found.passes
    least = min(found.cosines.values())
    found.bounds = Bounds(1, least)
    assert found.passes
    found.bounds = Bounds(1, least + 1e-9)
    assert not found.passes


@pytest.mark.parametrize(
    ("theirs", "problem"),
    [
        ({"a": np.ones(3)}, "have 3 components, those of the reference 2"),
        ({"a": np.array([np.nan, 1])}, "not numbers"),
        ({}, "nothing could be compared"),
    ],
)
def test_vectors_that_cannot_be_compared_do_not_pass(theirs: dict[str, np.ndarray], problem: str):
    rows = [Golden("a", Item.of(text="a"))]
    found = compare(rows, Answers({"a": np.ones(2)}), "e", {}, Answers(theirs), Bounds(1, -1))
    assert not found.passes and found.problem is not None and problem in found.problem


def test_ours_and_plain_sentence_transformers_agree(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", str(saved), "--engine", "sentence-transformers", "--tolerance", "1e-5", "--json", str(tmp_path / "c.json")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"sentence-transformers .* 1\.000000 .* pass", shown)
    content = json.loads((tmp_path / "c.json").read_text())
    (engine,) = content["engines"]
    assert content["passes"] and engine["passes"] and content["reference"]["engine"] == "ours"
    assert content["reference"]["fingerprint"] == embedder(FOLDER).fingerprint
    assert engine["compared"] == len(content["items"]) == len(engine["by_item"]) == len(golden_items(tmp_path))
    assert engine["largest_difference"] <= 1e-5 and engine[f"overlap@{TOP}"] == 1 and not engine["left_out"]


def test_a_folder_that_sentence_transformers_reads_otherwise_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """A text checkpoint that was not exported: there sentence-transformers attends causally, and averages instructions, too."""
    folder = str(text_checkpoint())
    capsys.readouterr()
    assert main(["check", folder, "--engine", "sentence-transformers", "--json", str(tmp_path / "c.json")]) == 1
    shown = capsys.readouterr()
    assert "FAIL" in shown.out and "worst are " in shown.out and shown.err == ""
    assert "ours leaves out image 96x96; " in shown.out and shown.out.count("the model does not take image") == 1
    content = json.loads((tmp_path / "c.json").read_text())
    assert {row["modality"] for row in content["items"]} == {"text"}
    assert not content["passes"] and content["engines"][0]["cosine_min"] < 0.99


def test_our_own_server_agrees(saved: Path):
    with running(ServerSettings(keys=(KEY,))) as server:
        done = check(saved, [server.url], key=KEY, tolerance=1e-5)
        (found,) = done.comparisons
        assert found.passes and found.overlap == 1 and not found.left_out, found.problem
        assert found.about == {"id": "tiny", "owned_by": "umr", "fingerprint": embedder(FOLDER).fingerprint}
        assert len(found.differences) == len(done.rows) > 25
        with pytest.raises(ModelError, match="answers 401"):
            HttpApi(server.url)
        with pytest.raises(ModelError, match="serves no model 'judge' that embeds; it has tiny"):
            HttpApi(f"{server.url}/v1#judge", KEY)


@pytest.mark.parametrize("name", list(MODELS)[1:])
def test_what_vllm_reads_of_an_export_gives_our_vectors(name: str):
    _, launched = exported(name)
    with serving("vllm", "vllm", lambda body: [launched.embed(body)]) as url:
        done = check(launched.folder, [url], tolerance=1e-5)
    (found,) = done.comparisons
    assert found.passes and found.overlap == 1, (found.problem, found.left_out, found.differences and found.worst)
    assert set(found.left_out.values()) == {"vLLM takes other frames of a video"} and len(found.left_out) == 3
    assert len(found.differences) == len(done.rows) - 3


def test_one_engine_as_it_should_be_and_one_with_another_pooling(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    _, launched = exported(next(iter(MODELS)))
    other = copy.copy(launched)
    other.pooler = {**launched.pooler, "pooling_type": "LAST"}
    with (
        serving("vllm", "right", lambda body: [launched.embed(body)]) as right,
        serving("vllm", "wrong", lambda body: [other.embed(body)]) as wrong,
    ):
        words = ["--engine", "ours", "--engine", right, "--engine", wrong, "--tolerance", "1e-5", "--json", str(tmp_path / "c.json")]
        assert main(["check", str(launched.folder), *words]) == 1
    assert re.search(rf"{right} .* pass *\n.*{wrong} .* FAIL", capsys.readouterr().out)
    assert [one["passes"] for one in json.loads((tmp_path / "c.json").read_text())["engines"]] == [True, False]


def test_any_other_api_is_asked_for_texts_without_instructions(saved: Path):
    """Beside it one that refuses long texts, and one that is not there: each has its own row."""

    def embed(body: dict[str, Any]) -> list[Any]:
        assert set(body) == {"model", "input", "encoding_format"}
        return embedder(FOLDER).encode([Item.of(text=text) for text in body["input"]]).tolist()

    def embed_short(body: dict[str, Any]) -> list[Any]:
        if any(len(text) > 200 for text in body["input"]):
            raise Refused("too long")
        return embed(body)

    with serving("someone", "their-model", embed) as url, serving("someone", "short", embed_short) as short:
        found, careful, absent = check(saved, ["ours", f"{url}/v1/embeddings#their-model", short, "http://127.0.0.1:1"]).comparisons
    assert found.passes and all(name.startswith("text") for name in found.differences)
    assert set(found.left_out.values()) == {"the API takes texts alone", "the API has no place for an instruction"}
    assert careful.passes and "text of 1 scene" in careful.differences
    assert careful.left_out["text of 16 scenes"] == "the server refuses it: 400, too long"
    assert not absent.passes and absent.problem is not None and "cannot be asked" in absent.problem


@pytest.mark.parametrize(
    ("engines", "options", "message"),
    [
        (["ours"], {}, "nothing to compare ours with"),
        (["ours", "ours"], {}, "named twice"),
        (["vllm"], {}, "engine 'vllm': use ours, sentence-transformers, or the address"),
        (["sentence-transformers"], {"key": "k"}, "key has no effect"),
        (["http://127.0.0.1:1"], {"trust_remote_code": True}, "trust_remote_code has no effect"),
    ],
)
def test_mistakes_in_the_question(engines: list[str], options: dict[str, Any], message: str):
    with pytest.raises(RecipeError, match=message):
        check("nowhere", engines, **options)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "file:///etc/passwd"])
def test_only_web_addresses_are_asked(url: str):
    with pytest.raises(ModelError, match="not the address of a server"):
        HttpApi(url)


def test_code_that_a_folder_carries_is_not_run_unasked(saved: Path, tmp_path: Path):
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    file = folder / "umr_pooling.py"
    file.write_text(file.read_text() + f"\nimport pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    with pytest.raises(ModelError, match=r"umr_pooling.py\); read it, then say --trust-remote-code"):
        PlainSentenceTransformer(folder, "float32", False)
    assert not (tmp_path / "ran").exists()
    PlainSentenceTransformer(folder, "float32", True)
    assert (tmp_path / "ran").exists()


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
