"""Whole pipelines of tiny models: what is left behind, what a second run skips, and that interruptions leave no trace."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import warm
from pipeline import small_pipeline
from pipeline.small_pipeline import products
from umr.cli import main
from umr.errors import RecipeError
from umr.models import parts
from umr.models.embedder import Embedder
from umr.pipelines import Options, load, run
from umr.pipelines.manifest import read_record
from umr.pipelines.pipeline import Mistakes
from umr.reports.comparison import compare
from umr.reports.saved import load as load_evaluation


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and recipes, and `run/` finished. Not to be changed: `own_run` is a copy."""
    folder = tmp_path_factory.mktemp("small")
    small_pipeline.write(folder)
    small_pipeline.write_full(folder)
    run(load(folder / "pipeline.yaml"))
    return folder


@pytest.fixture
def own_run(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root / "run", tmp_path / "run"))


def worked(pipeline: Path, out: Path, *changes: str, **options: Any) -> dict[str, str]:
    """Run, and what was decided for each stage."""
    lines: list[str] = []
    run(load(pipeline, list(changes), out), Options(**options), lines.append)
    return {name: line.partition(",")[0] for name, _, line in (line.partition(": ") for line in lines)}


SKIPPED = dict.fromkeys(("start", "captions", "find", "after-captions", "after-find"), "skip")


# What a run leaves behind


def test_every_stage_leaves_its_product_and_a_manifest(root: Path):
    folder = root / "run"
    assert set(products(folder)) == set(SKIPPED)
    manifest = json.loads((folder / "find" / "stage.json").read_text())
    assert manifest["inputs"]["captions"] == products(folder)["captions"]
    assert list(manifest["inputs"]) == ["captions", f"data.0.path {root}/tree"]
    assert manifest["metrics"]["steps"] == 3
    assert manifest["versions"]["torch"]
    assert not list(folder.glob("*/stage.started.json"))


def test_a_learned_temperature_is_kept_from_stage_to_stage(root: Path):
    """`find` gives no temperature, so it goes on from what `captions` has learned, which began at 0.1."""
    first, second = (json.loads((root / "run" / name / "run.json").read_text())["temperature"] for name in ("captions", "find"))
    assert first != 0.1
    assert abs(second - first) < 0.01


def test_the_hits_of_each_query_add_up_to_the_averages(root: Path):
    folder = root / "run" / "after-captions"
    hits = pq.read_table(folder / "hits.parquet").to_pylist()
    result, metrics = json.loads((folder / "result.json").read_text()), json.loads((folder / "stage.json").read_text())["metrics"]
    for pool in ("local", "global"):
        means = []
        for one in result["settings"]:
            rows = [row for row in hits if row["pool"] == pool and row["setting"] == one["setting"]]
            expected = one["pools"][pool]["metrics"]
            means.append(100 * np.mean([row["main"] for row in rows]))
            assert len({row["qid"] for row in rows}) == len(rows) == one["queries"]
            assert means[-1] == pytest.approx(expected[one["main_metric"]])
            for name in ("hit@1", "hit@5"):
                assert 100 * np.mean([row[name] for row in rows]) == pytest.approx(expected[name])
        assert np.mean(means) == pytest.approx(metrics[pool])


def test_stages_that_measure_can_be_compared(root: Path):
    stage = root / "run" / "after-captions"
    found = compare([load_evaluation(stage, name) for name in ("one", "two")])
    metrics = json.loads((stage / "stage.json").read_text())["metrics"]
    for pool in ("local", "global"):
        assert found["pools"][pool]["average"]["scores"]["two"]["mean"] == pytest.approx(metrics[pool])


def test_the_report_shows_each_measurement(root: Path):
    report = json.loads((root / "run" / "report.json").read_text())
    measured = {stage["name"]: stage for stage in report["stages"] if stage["kind"] == "eval"}
    assert set(measured) == {"after-captions", "after-find"}
    assert set(measured["after-captions"]["settings"]["wiki_task1"]) == {"local", "global", "modality@1"}
    assert "global" not in measured["after-find"]["metrics"]
    html = (root / "run" / "report.html").read_text()
    assert "data:image/png;base64" in html
    assert "http" not in html.replace("http-equiv", "")
    assert f"{measured['after-captions']['metrics']['local']:.1f}" in html


# What a second run does


def test_a_finished_pipeline_is_left_alone(root: Path, own_run: Path):
    assert worked(root / "pipeline.yaml", own_run) == SKIPPED


def test_a_change_runs_what_depends_on_it_and_keeps_the_old_output(root: Path, own_run: Path):
    before = products(own_run)
    done = worked(root / "pipeline.yaml", own_run, "stages.find.training.steps=2")
    assert done == SKIPPED | {"find": "run", "after-find": "run"}
    after = products(own_run)
    assert {name for name in after if after[name] != before[name]} >= {"find"}
    assert products(own_run / "replaced") == {name: before[name] for name in ("find", "after-find")}


def test_a_stage_that_ends_as_before_leaves_its_dependants_alone(root: Path, own_run: Path):
    """How often a checkpoint is saved is part of the config, and decides nothing."""
    done = worked(root / "pipeline.yaml", own_run, "stages.captions.training.save_every=2")
    assert done == SKIPPED | {"captions": "run"}


def test_changed_data_from_outside_runs_what_reads_it(root: Path, own_run: Path, tmp_path: Path):
    tree = Path(shutil.copytree(root / "tree", tmp_path / "tree"))
    change = f"stages.find.data.0.path={tree}"
    worked(root / "pipeline.yaml", own_run, change)
    assert worked(root / "pipeline.yaml", own_run, change) == SKIPPED
    queries = tree / "query" / "train" / "mbeir_shapes_task0_train.jsonl"
    queries.write_text("".join(queries.read_text().splitlines(keepends=True)[:-1]))
    assert worked(root / "pipeline.yaml", own_run, change)["find"] == "run"


def test_a_product_that_was_deleted_is_made_again(root: Path, own_run: Path):
    before = products(own_run)
    shutil.rmtree(own_run / "captions" / "model")
    assert worked(root / "pipeline.yaml", own_run) == SKIPPED | {"captions": "run"}
    assert products(own_run) == before


def test_from_and_only(root: Path, own_run: Path):
    assert worked(root / "pipeline.yaml", own_run, start="find") == SKIPPED | {"find": "run", "after-find": "run"}
    assert worked(root / "pipeline.yaml", own_run, "steps=1", only="find") == {"find": "skip"}
    assert worked(root / "pipeline.yaml", own_run, start="captions", only="captions") == {"captions": "run"}
    shutil.rmtree(own_run / "captions")
    with pytest.raises(RecipeError, match="--only find: it uses stage 'captions', which is not finished"):
        worked(root / "pipeline.yaml", own_run, only="find")
    with pytest.raises(RecipeError, match="no stage 'fin'"):
        worked(root / "pipeline.yaml", own_run, start="fin")


def test_nothing_begins_when_something_from_outside_is_missing(root: Path, tmp_path: Path):
    with pytest.raises(Mistakes, match=r"nowhere/query: does not exist.*; needed by find"):
        worked(root / "pipeline.yaml", tmp_path / "run", f"stages.find.data.0.path={tmp_path}/nowhere")
    assert not (tmp_path / "run" / "start").exists()


def test_a_second_process_is_refused(root: Path, own_run: Path):
    with (own_run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RecipeError, match="another process is running this"):
            worked(root / "pipeline.yaml", own_run)


def test_the_command_runs_plans_and_reports(root: Path, own_run: Path, capsys: pytest.CaptureFixture[str]):
    words = ["run", str(root / "pipeline.yaml"), "--out", str(own_run), "stages.captions.training.steps=1"]
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "config changed (recipe.training.steps: 2 -> 1)" in out
    assert "skipped if captions, run before it, comes out as before" in out
    assert read_record(own_run / "captions", "model").finished is not None
    assert main([*words, "--only", "captions"]) == 0
    out = capsys.readouterr().out
    assert "averages in percent" in out
    assert "report.html" in out


def test_an_adapter_is_merged_and_the_rest_goes_on_from_the_result(root: Path, tmp_path: Path):
    base = root / "run" / "captions" / "model"
    embedder = Embedder.load(base)
    parts.add_lora(embedder.engine.model.network, 4, 8, 0.0, ["language"]).save_pretrained(tmp_path / "adapter")
    path = root / "merge.yaml"
    path.write_text(
        f"""
name: merge
stages:
  - {{name: merged, kind: merge, model: {base}, adapter: {tmp_path}/adapter}}
  - {{name: find, kind: train, recipe: recipes/find.yaml, with: {{model.path: "${{merged}}", training.steps: 1}}}}
"""
    )
    manifests = run(load(path, out=tmp_path / "run"))
    assert worked(path, tmp_path / "run") == {"merged": "skip", "find": "skip"}
    before = json.loads((root / "run" / "captions" / "run.json").read_text())["temperature"]
    assert json.loads((tmp_path / "run" / "merged" / "model" / "umr.json").read_text())["temperature"] == before
    assert abs(manifests["find"].metrics["temperature"] - before) < 0.01
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(Mistakes, match="adapter: neither a model folder"):
        worked(path, tmp_path / "other")


# Interruptions


class Stopped(Exception):
    """Stands for a kill in the middle of the work."""


@pytest.mark.slow
def test_every_kind_of_stage_interrupted_again_and_again_ends_as_a_straight_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Everything that is finished is put in place by a rename; here every few of them fail, before or after they are done."""
    pipeline, rename, draw = root / "full.yaml", os.replace, random.Random(0)
    run(load(pipeline, out=tmp_path / "straight"))
    left = 3

    def failing(source: Any, target: Any, **more: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0 and draw.random() < 0.5:
            rename(source, target, **more)
        if left < 0:
            raise Stopped
        rename(source, target, **more)

    stops, decided = 0, list[str]()
    monkeypatch.setattr(os, "replace", failing)
    while stops < 200:
        left = draw.randint(6, 24)
        try:
            run(load(pipeline, out=tmp_path / "broken"), show=decided.append)
            break
        except Stopped:
            stops += 1
    monkeypatch.undo()
    assert 6 < stops < 200
    assert len({line.partition(":")[0] for line in decided if ": resume" in line}) > 4
    assert products(tmp_path / "broken") == products(tmp_path / "straight")
    names = ("plus/result.json", "plus/hits.parquet", "weights/weights.json", "mine/negatives/negatives.parquet")
    for name in names:
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_pipeline_killed_at_random_moments_ends_as_a_straight_run(root: Path, tmp_path: Path):
    draw, folder = random.Random(1), tmp_path / "run"
    killed = 0
    for _ in range(20):
        process = warm.umr("run", root / "pipeline.yaml", "--out", folder, session=True)
        deadline, done = time.monotonic() + 300, set(products(folder)) if folder.exists() else set()
        while process.poll() is None and time.monotonic() < deadline and killed < 4:
            begun = [file for file in folder.glob("*/stage.started.json") if file.parent.name not in done]
            if begun:
                time.sleep(draw.uniform(0, 0.5))
                break
            time.sleep(0.005)
        if killed < 4 and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
            process.wait()
        elif process.wait() == 0:
            break
    assert killed >= 3
    assert products(folder) == products(root / "run")


def test_several_processes_run_a_pipeline_and_end_together_when_the_first_fails(root: Path, tmp_path: Path):
    good = warm.ranks(2, "run", root / "pipeline.yaml", "--out", tmp_path / "run")
    assert [one.wait() for one in good] == [0, 0], [one.stderr for one in good]
    assert products(tmp_path / "run").keys() == SKIPPED.keys()
    bench = Path(shutil.copytree(root / "bench", tmp_path / "bench"))
    (bench / "query" / "test" / "mbeir_wiki_task1_test.jsonl").write_text("no JSON\n")
    bad = warm.ranks(2, "run", root / "pipeline.yaml", f"stages.after-captions.benchmark={bench}", "--out", tmp_path / "run")
    assert all(one.wait() not in (0, None) for one in bad)
    errors = [line for one in bad for line in one.stderr.splitlines() if line.startswith("umr: error: ")]
    assert len(errors) == 1 and "mbeir_wiki_task1_test.jsonl" in errors[0]
