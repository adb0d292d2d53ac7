"""Studies of tiny pipelines: shared stages run once, interruptions leave no trace, and what the report says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import warm
from pipeline import small_pipeline
from pipeline.small_pipeline import products
from umr.cli import main
from umr.errors import UmrError
from umr.pipelines.pipeline import Mistakes
from umr.study import load, run
from umr.study.job import ready
from umr.study.nodes import Node, matrix
from umr.study.report import differences_of_hits


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, recipes, and `study/` finished."""
    folder = tmp_path_factory.mktemp("small")
    small_pipeline.write(folder)
    run(load(small_pipeline.write_study(folder)))
    return folder


def changed(root: Path, folder: Path, *pairs: tuple[str, str]) -> Path:
    """The study with some text replaced, in a file beside the pipeline."""
    text = (root / "study.yaml").read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path = root / f"{folder.name}.yaml"
    path.write_text(text)
    return path


def names(nodes: dict[str, Node]) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in nodes.values():
        found[node.step.name] = found.get(node.step.name, 0) + 1
    return found


# What runs


def test_what_variants_have_in_common_is_one_stage(root: Path):
    whole = matrix(load(root / "study.yaml"))
    # Two seeds of everything; captions with 2 and with 3 steps; find after captions and alone.
    assert names(whole.nodes) == {"start": 2, "captions": 4, "after-captions": 4, "find": 4, "after-find": 4}
    two, alone = whole.reported["steps of captions", "two", 0], whole.reported["order", "captions alone", 0]
    assert two is alone
    assert set(products(root / "study" / "stages")) == set(whole.nodes)


def test_stages_that_nothing_needs_are_left_out_unless_they_are_asked_for(root: Path, tmp_path: Path):
    first = "    stage: after-captions\n"
    path = changed(root, tmp_path, (first, first + "    stages: [find]\n"), ("  - name: order", "unused: |\n  - name: order"))
    text = path.read_text()
    path.write_text(text[: text.index("unused:")])
    assert names(matrix(load(path)).nodes) == {"start": 2, "captions": 4, "find": 4, "after-captions": 4}


def test_changes_of_a_table_are_made_in_each_variant_and_a_variant_has_the_last_word(root: Path, tmp_path: Path):
    first = "    stage: after-captions\n"
    study = load(changed(root, tmp_path, (first, first + "    changes: {steps: 5, stages.captions.training.batch_size: 4}\n")))
    two, three = (variant.pipelines[0].step("captions").config["recipe"]["training"] for variant in study.tables[0].variants)
    assert [one["batch_size"] for one in (two, three)] == [4, 4]
    assert three["steps"] == 3


def test_keys_do_not_depend_on_where_the_study_is(root: Path, tmp_path: Path):
    assert matrix(load(root / "study.yaml", tmp_path)).nodes.keys() == matrix(load(root / "study.yaml")).nodes.keys()


def test_a_finished_study_runs_nothing_and_a_larger_one_only_what_is_new(root: Path, tmp_path: Path):
    lines: list[str] = []
    run(load(root / "study.yaml"), show=lines.append)
    assert lines == ["18 distinct stages, 18 done"]
    lines.clear()
    run(load(changed(root, tmp_path, ("three: {steps: 3}", "three: {steps: 3}\n      one: {steps: 1}"))), show=lines.append)
    assert lines[0] == "22 distinct stages, 18 done"
    assert sorted(line.rpartition("-")[0] for line in (one.partition(":")[0] for one in lines[1:])) == [
        "after-captions",
        "after-captions",
        "captions",
        "captions",
    ]


def test_stages_that_embed_with_one_model_take_turns(root: Path, tmp_path: Path):
    nodes = list(matrix(load(root / "study.yaml", tmp_path)).nodes.values())
    first = ready(nodes, [], 10)
    assert {node.step.name for node in first} == {"start"}
    captions = [node for node in nodes if node.step.name == "captions"]
    assert len(ready(captions, [], 3)) == 3
    measuring, *others = [node for node in nodes if node.step.name.startswith("after")]
    assert measuring.embeds is not None
    assert measuring.embeds in {used.key for used in measuring.uses.values()}
    assert {node.key for node in ready(others, [], 10)} == {node.key for node in others}
    assert ready([measuring], [measuring], 10) == []


@pytest.mark.slow
def test_two_workers_that_are_interrupted_and_start_again_run_every_stage(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = changed(root, tmp_path, ("seeds: [0, 1]", "seeds: [1]"), ("      three: {steps: 3}\n", ""))
    words, stages = ["study", str(path), "--out", str(tmp_path / "two"), "--workers", "2"], tmp_path / "two" / "stages"
    first = warm.umr(*words, session=True)
    deadline = time.monotonic() + 200
    while len(products(stages)) < 2 and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait() == 130, first.stderr
    done = products(stages)
    assert 2 <= len(done) < 7
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # it is set for the processes that begin, and set back here
    assert main(words) == 0
    assert f"7 distinct stages, {len(done)} done" in capsys.readouterr().out
    finished, straight = products(stages), products(root / "study" / "stages")
    assert len(finished) == 7 and finished.items() >= done.items()
    assert finished.keys() <= straight.keys(), "another test may have added variants there"
    assert {key: finished[key] for key in done if key.startswith("start")} == {
        key: straight[key] for key in done if key.startswith("start")
    }
    assert json.loads((tmp_path / "two" / "report.json").read_text())["tables"][1]["rows"][0]["local"]["half_width"] is None


def test_stages_end_with_a_study_that_is_killed():
    script = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from umr.study.job import _prepare
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_prepare)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""
    study = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert study.stdout is not None
    stage = Path("/proc") / study.stdout.readline().strip()
    assert stage.exists()
    study.kill()
    study.wait()
    for _ in range(200):
        if not stage.exists() or "\nState:\tZ" in (stage / "status").read_text():
            return
        time.sleep(0.05)
    os.kill(int(stage.name), signal.SIGKILL)
    pytest.fail("the stage's process is still there")


def test_a_stage_that_fails_is_named_and_what_was_done_is_reported(root: Path, tmp_path: Path):
    bench = root / "broken"
    (bench / "query" / "test").mkdir(parents=True)
    for name in ("instructions", "qrels", "cand_pool", "mbeir_images"):
        (bench / name).symlink_to(root / "bench" / name)
    for file in (root / "bench" / "query" / "test").iterdir():
        (bench / "query" / "test" / file.name).write_text(file.read_text() if "wiki" not in file.name else "no JSON\n")
    change = ("three: {steps: 3}", f'three: {{stages.after-captions.benchmark: "{bench}"}}')
    with pytest.raises(UmrError, match=r"mbeir_wiki_task1_test.jsonl"):
        run(load(changed(root, tmp_path, change)))
    report = json.loads((root / "study" / "report.json").read_text())
    assert [row["variant"] for row in report["tables"][0]["rows"]] == ["two"]


# What the report says


def test_the_report_gives_means_intervals_and_differences(root: Path):
    study = load(root / "study.yaml")
    content = run(study)
    (two, three), whole = content["tables"][0]["rows"], matrix(study)
    done = {(name, seed): whole.reported["steps of captions", name, seed] for name in ("two", "three") for seed in (0, 1)}
    scores = {key: node.record.finished.metrics for key, node in done.items() if node.record.finished}
    assert two["seeds"] == [0, 1]
    assert two["paper"] == {"local": 50.0}
    assert two["local"]["mean"] == pytest.approx(np.mean([scores["two", seed]["local"] for seed in (0, 1)]))
    assert "local difference" not in two
    expected = [scores["three", seed]["global"] - scores["two", seed]["global"] for seed in (0, 1)]
    assert three["global difference"]["values"] == pytest.approx(expected)
    groups = differences_of_hits(done["three", 0], done["two", 0], "global")
    assert 100 * np.mean([group.mean() for group in groups]) == pytest.approx(expected[0])
    assert 0 < three["global difference"]["p"] <= 1


def test_the_report_is_written_for_people_and_programs(root: Path):
    folder = root / "study"
    run(load(root / "study.yaml"))
    markdown, html = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    assert "## steps of captions (Table 0)" in markdown
    assert "| variant | seeds | local | difference | p | paper, local | global |" in markdown
    assert (folder / "steps-of-captions.png").read_bytes()[:4] == b"\x89PNG"
    assert html.count("data:image/png;base64") == 2


def test_a_dry_run_counts_stages(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["study", str(root / "study.yaml"), "--dry-run"]) == 0
    assert "10 runs of a variant with a seed need 18 distinct stages; 18 are done" in capsys.readouterr().out
    path = changed(root, tmp_path, ("two: {}", f'two: {{stages.captions.data.0.path: "{tmp_path}/none.jsonl"}}'))
    assert main(["study", str(path), "--dry-run"]) == 1
    assert f"umr: error: {tmp_path}/none.jsonl: does not exist; needed by captions" in capsys.readouterr().err


# What is wrong with a study


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: two", "baseline: none", r"tables.steps of captions.baseline: 'none' is none of the variants two, three"),
        ("three: {steps: 3}", "three: {step: 3}", "variants.three: step: .* has no variable of this name"),
        ("stage: after-find", "stage: find", "variants.captions first: stage 'find' measures nothing"),
        ("stage: after-find", "stage: nothing", "variants.captions first: small: there is no stage 'nothing'"),
        ("paper_local: {two: 50.0}", "paper_local: {four: 1.0}", "paper_local: there is no variant 'four'"),
        ("stage: after-find", "stage: after-find\n    changes: {stage: after-captions}", "changes.stage: has no effect on all variants"),
        ("seeds: [0, 1]", "seeds: []", "seeds: List should have at least 1 item"),
        ("name: which", "name: which\ncolour: red", "colour: Extra inputs"),
    ],
)
def test_a_mistake_is_told_with_its_key(root: Path, tmp_path: Path, old: str, new: str, message: str):
    with pytest.raises(Mistakes, match=message):
        load(changed(root, tmp_path, (old, new)))


def test_a_study_needs_a_seed_to_set(root: Path, tmp_path: Path):
    (root / "unseeded.yaml").write_text((root / "pipeline.yaml").read_text().replace("seed: 0, ", "").replace("seed: ${seed}", "seed: 0"))
    with pytest.raises(Mistakes, match="a study sets the variable 'seed', which the pipeline does not have"):
        load(changed(root, tmp_path, ("pipeline: pipeline.yaml", "pipeline: unseeded.yaml")))
