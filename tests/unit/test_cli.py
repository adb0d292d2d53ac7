"""The command line: what it prints, and that every mistake ends in one line on stderr."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from umr.cli import main
from umr.cli.mistakes import usage_line, what_went_wrong
from umr.data.texts import read_texts
from umr.errors import DataError, MediaError

SRC = Path(__file__).parents[2] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
VERBS = (
    "demo",
    "world",
    "init",
    "train",
    "run",
    "study",
    "index",
    "search",
    "serve",
    "judgements",
    "mine",
    "score",
    "embed",
    "eval",
    "suites",
    "mteb",
    "calibrate",
    "compare",
    "report",
    "check-data",
    "import",
    "export",
    "check",
    "merge",
)

RECIPE = """\
name: captions
model: {path: MODEL}
data: [{kind: mbeir, path: BENCHMARK}]
training: {batch_size: 4, steps: 2, learning_rate: 0.001, workers: 0}
"""


def error_line(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 1) -> str:
    """Run a command line that must fail, and return the message of the only line on stderr (progress lines aside)."""
    assert main([str(word) for word in words]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not re.match(r"[\w ,>-]+: .*\bin [\d.]+ s", line)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("umr: error: ")
    assert "Traceback" not in lines[0] and "unexpected" not in lines[0]
    return lines[0].removeprefix("umr: error: ")


def break_file(file: Path, content: bytes) -> None:
    file.unlink()  # it is a link: writing into it would change the original
    file.write_bytes(content)


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"\b{verb}\b", shown) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]):
    assert main([verb, "--help"]) == 0
    assert f"Usage: umr {verb}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "umr 0.1.0\n"


def test_nothing_asked_for_shows_the_help(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    shown = capsys.readouterr()
    assert "Usage: umr" in shown.out and shown.err == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate"], "No such command"),
        (["eval", "--nonsense"], "--nonsense"),
        (["eval", "--benchmark", "b"], "Missing option '--model'"),
        (["eval", "--model", "m", "--benchmark", "b", "--pool", "village"], "village"),
        (["init", "gpt2", "out"], "gpt2"),
        (["world", "out", "--seed", "x"], "--seed"),
        (["world"], "Missing argument"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    line = error_line(capsys, *words, code=2)
    assert says in line and "--help`)" in line


def test_init_makes_a_checkpoint_that_transformers_loads_and_does_not_overwrite_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from transformers import AutoConfig, AutoProcessor

    out = tmp_path / "model"
    assert main(["init", "qwen3-vl", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert AutoConfig.from_pretrained(out).model_type == "qwen3_vl"
    assert AutoProcessor.from_pretrained(out).tokenizer("a red circle").input_ids
    assert str(out) in error_line(capsys, "init", "qwen3-vl", out)


def test_init_reads_texts_of_each_kind(tmp_path: Path):
    (tmp_path / "plain.txt").write_text("one\n\n two \n")
    for split, text in (("train", "three"), ("test", "unseen")):
        (tmp_path / "query" / split).mkdir(parents=True)
        (tmp_path / "query" / split / "q.jsonl").write_text(f'{{"query_txt": "{text}", "qid": "1:1"}}\n\n{{"txt": "four", "text": null}}\n')
    (tmp_path / "instructions").mkdir()
    (tmp_path / "instructions" / "query_instructions.tsv").write_text('dataset_id\tprompt_1\tprompt_2\n1\tFind "it.\t\n')
    assert list(read_texts(tmp_path / "plain.txt")) == ["one", "two"]
    assert list(read_texts(tmp_path / "query" / "test" / "q.jsonl")) == ["unseen", "four"]
    assert list(read_texts(tmp_path)) == ['Find "it.', "three", "four"]


def test_init_with_texts_that_are_missing_broken_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    broken, none = tmp_path / "broken.jsonl", tmp_path / "none.jsonl"
    broken.write_text('{"txt": "fine"}\n{"txt": \n')
    none.write_text('{"label": 1}\n')
    out = tmp_path / "out"
    assert f"{broken}:2" in error_line(capsys, "init", "qwen3-vl", out, "--texts", broken)
    assert str(none) in error_line(capsys, "init", "qwen3-vl", out, "--texts", none)
    assert "no such file" in error_line(capsys, "init", "qwen3-vl", out, "--texts", tmp_path / "nowhere")
    broken.write_text("[1]\n")
    assert f"{broken}:1" in error_line(capsys, "init", "qwen3-vl", out, "--texts", broken)
    assert not out.exists()


def test_world_says_what_is_there_and_does_not_overwrite_it(world: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["world", str(world)]) == 0
    shown = capsys.readouterr().out
    assert "was there already" in shown and all(f"_task{task}" in shown for task in range(5))
    assert str(world) in error_line(capsys, "world", world, "--seed", "4")


def test_check_data_finds_nothing_wrong_with_world(world: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check-data", str(world)]) == 0
    shown = capsys.readouterr().out
    assert all(f"{split}:\n" in shown for split in ("train", "val", "test"))


def test_check_data_reports_file_and_line(own_world: Path, capsys: pytest.CaptureFixture[str]):
    pool = sorted((own_world / "cand_pool" / "local").glob("*.jsonl"))[0]
    break_file(pool, pool.read_bytes() + b'{"did": "1:\n')
    assert main(["check-data", str(own_world), "--split", "test"]) == 1
    assert f"{pool}:{len(pool.read_bytes().splitlines())}" in capsys.readouterr().out


def test_check_data_of_no_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert str(tmp_path) in error_line(capsys, "check-data", tmp_path)
    (tmp_path / "query").mkdir()
    assert "no queries" in error_line(capsys, "check-data", tmp_path)


def first_task(world: Path) -> str:
    from umr import MBeir

    return MBeir(world).settings("test")[0].name


def test_eval_prints_a_table_and_writes_the_same_bytes_twice(
    world: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    task = first_task(world)
    command = ["eval", "--model", str(tiny_model), "--benchmark", str(world), "--pool", "local", "--tasks", task]
    assert main([*command, "--json", str(tmp_path / "one.json")]) == 0
    assert task in capsys.readouterr().out
    more = ["--work", str(tmp_path / "work"), "--curve", str(tmp_path / "curve")]
    assert main([*command, "--json", str(tmp_path / "two.json"), *more]) == 0
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    content = json.loads((tmp_path / "one.json").read_bytes())
    assert content["averages"].keys() == {"local"}
    assert "binary, rescored" in capsys.readouterr().out and (tmp_path / "curve" / "curve.png").is_file()
    first = json.loads((tmp_path / "curve" / "curve.json").read_bytes())["points"][0]
    assert (first["dimension"], first["precision"], first["main"]) == (128, "fp16", content["averages"]["local"]["main"])


class TestEvalMistakes:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["--model", "m", "--instruction", "all"], "--curve is of one wording"),
            (["--model", "m", "--pool", "global", "--modality-filter"], "--curve has no effect where the global pool"),
            (["--run", "r.trec", "--pool", "local"], "--curve has no effect with --run"),
        ],
    )
    def test_a_curve_without_effect(self, tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]):
        assert says in error_line(capsys, "eval", "--benchmark", tmp_path, "--curve", tmp_path / "curve", *options)

    def test_no_such_model(self, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        missing = tmp_path / "nowhere"
        assert str(missing) in error_line(capsys, "eval", "--model", missing, "--benchmark", world)

    def test_folder_that_is_no_model(self, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        assert str(tmp_path) in error_line(capsys, "eval", "--model", tmp_path, "--benchmark", world)

    def test_model_without_a_processor(self, world: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        bare = tmp_path / "bare"
        bare.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(tiny_model / name, bare)
        line = error_line(capsys, "eval", "--model", bare, "--benchmark", world)
        assert str(bare) in line and "processor" in line

    def test_no_such_benchmark(self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        missing = tmp_path / "nowhere"
        assert str(missing) in error_line(capsys, "eval", "--model", tiny_model, "--benchmark", missing)

    def test_no_such_task(self, world: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]):
        assert "tea_task0" in error_line(capsys, "eval", "--model", tiny_model, "--benchmark", world, "--tasks", "tea_task0")

    def test_broken_line(self, own_world: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]):
        task = first_task(own_world)
        file = own_world / "query" / "test" / f"mbeir_{task}_test.jsonl"
        lines = file.read_bytes().splitlines()
        break_file(file, b"\n".join([*lines[:2], lines[2][:20], *lines[3:]]))
        line = error_line(capsys, "eval", "--model", tiny_model, "--benchmark", own_world, "--tasks", task)
        assert f"{file}:3" in line

    def test_image_that_is_none(self, own_world: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]):
        from umr import MBeir

        tree = MBeir(own_world)
        setting = next(setting for setting in tree.settings("test") if setting.modalities == ("text", "image"))
        records = map(json.loads, tree.pool_path(setting, "test").read_text().splitlines())
        image = own_world / next(record["img_path"] for record in records)
        break_file(image, b"this is not an image")
        line = error_line(capsys, "eval", "--model", tiny_model, "--benchmark", own_world, "--pool", "local", "--tasks", setting.name)
        assert str(image) in line


class TestTrainMistakes:
    @pytest.fixture
    def recipe(self, tmp_path: Path, world: Path, tiny_model: Path) -> Path:
        file = tmp_path / "recipe.yaml"
        file.write_text(RECIPE.replace("MODEL", str(tiny_model)).replace("BENCHMARK", str(world)))
        return file

    def test_no_such_recipe(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        assert "nowhere.yaml" in error_line(capsys, "train", tmp_path / "nowhere.yaml", "--out", tmp_path / "run")

    def test_recipe_that_is_not_yaml(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        file = tmp_path / "recipe.yaml"
        file.write_text("name: [")
        assert str(file) in error_line(capsys, "train", file, "--out", tmp_path / "run")

    @pytest.mark.parametrize(
        ("override", "says"),
        [
            ("training.learningrate=1", "training.learningrate"),
            ("training.batch_size=many", "training.batch_size"),
            ("model.path=/no/such/model", "/no/such/model"),
            ("data.0.path=/no/such/data", "/no/such/data"),
            ("steps", "steps"),
        ],
    )
    def test_bad_setting(self, override: str, says: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        assert says in error_line(capsys, "train", recipe, override, "--out", tmp_path / "run")


def test_train_makes_a_model_that_loads(world: Path, tiny_model: Path, tmp_path: Path):
    from umr import Embedder, Item

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("MODEL", str(tiny_model)).replace("BENCHMARK", str(world)))
    assert main(["train", str(recipe), "training.steps=1", "--out", str(tmp_path / "run")]) == 0
    vectors = Embedder.load(tmp_path / "run" / "model").encode([Item.of(text="a red circle")])
    assert vectors.shape[0] == 1


def test_an_unexpected_error_is_one_line_that_points_to_debug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(*args: object, **options: object) -> None:
        raise KeyError("nothing\nhere")

    monkeypatch.setattr("umr.models.tiny.make_checkpoint", fail)
    assert main(["init", "qwen3-vl", str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err
    assert line.startswith("umr: error: unexpected KeyError in umr/cli/init.py, line ")
    assert line.endswith("--debug shows the traceback\n") and line.count("\n") == 1
    for words in (["--debug", "init", "qwen3-vl", str(tmp_path / "out")], ["init", "qwen3-vl", str(tmp_path / "out"), "--debug"]):
        with pytest.raises(KeyError):
            main(words)


def test_messages():
    assert what_went_wrong(DataError("a.jsonl:3:\n  not JSON")) == "a.jsonl:3: not JSON"
    assert what_went_wrong(MediaError("x.png: empty")) == "x.png: empty"
    assert what_went_wrong(FileNotFoundError(2, "No such file or directory", "/x/y")) == "no such file or directory: /x/y"
    assert what_went_wrong(PermissionError(13, "Permission denied", b"/x")) == "permission denied: /x"
    assert what_went_wrong(ValueError("")) == "unexpected ValueError: no message; --debug shows the traceback"
    assert usage_line(ValueError("x")) is None


def test_an_interruption_is_one_line_and_code_130(tmp_path: Path):
    out, begun = tmp_path / "world", tmp_path / ".world.partial" / "mbeir_images"
    command = [sys.executable, "-m", "umr", "world", str(out), "--size", "mini"]

    def listen() -> None:  # a shell's background jobs start deaf to interruptions, and their children with them
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    deadline = time.monotonic() + 100
    while not begun.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == "" and not out.exists()
    assert [line for line in stderr.splitlines() if line.startswith("umr: error: ")] == [
        "umr: error: interrupted; what is on disk is whole, and the same command goes on from there"
    ]
    assert "Traceback" not in stderr


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "umr", "eval", "--help"], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=60)
