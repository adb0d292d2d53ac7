"""What eval stages pass on beyond models and pools, and stages of zero-shot suites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from umr.evaluation.suites import evaluate_suite
from umr.models.embedder import Embedder
from umr.pipelines.needs import missing
from umr.pipelines.pipeline import Mistakes, load
from umr.pipelines.runner import run
from umr.progress import quiet
from unit import mbeir_fixture, suite_folders

PIPELINE = """
name: measuring
folder: {root}/run
sources: {"{root}/coco": "cocodataset.org"}
stages:
  - {name: plain, kind: eval, model: {model}, benchmark: {root}/bench}
  - {name: bounded, kind: eval, model: {model}, benchmark: {root}/bench, memory: 8GiB}
  - {name: reworded, kind: eval, model: {model}, benchmark: {root}/bench, instruction: wording-2, own_positives: true}
  - {name: zero-shot, kind: suites, model: {model}, suites: {urban1k: {root}/urban, coco: {root}/coco}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("measuring")
    mbeir_fixture.write_tree(root / "bench")
    suite_folders.urban1k(root / "urban")
    suite_folders.five_captions(root / "coco", "coco_text.json", images=3)
    return root


def write(root: Path, old: str = "", new: str = "") -> Path:
    assert old in PIPELINE
    file = root / "pipeline.yaml"
    file.write_text(PIPELINE.replace(old, new).replace("{root}", str(root)).replace("{model}", str(tiny.checkpoint("qwen3-vl"))))
    return file


def test_stages_measure_as_they_are_told(root: Path):
    with quiet():
        manifests = run(load(write(root)))
    results = {name: json.loads((root / "run" / name / "result.json").read_text()) for name in manifests}
    assert results["bounded"] == results["plain"]
    assert (results["plain"]["positives"], results["plain"]["instruction"]) == ("all", "first")
    assert (results["reworded"]["positives"], results["reworded"]["instruction"]) == ("own", "wording-2")
    model = Embedder.load(tiny.checkpoint("qwen3-vl"))
    for result, name, folder in zip(results["zero-shot"]["suites"], ("urban1k", "coco"), ("urban", "coco"), strict=True):
        alone = evaluate_suite(model, name, root / folder)
        assert result == json.loads(alone.to_json())
        for task in alone.tasks:
            assert manifests["zero-shot"].metrics[f"{name} {task.task} {alone.main}"] == task.metrics[alone.main]


def test_a_suite_is_known_by_its_annotations_and_missed_before_anything_runs(root: Path):
    step = load(write(root)).step("zero-shot")
    urban, coco = (need for need in step.needs if need.role == "suite")
    before = coco.fingerprint()
    (root / "coco" / "new.txt").write_text("no part of it")
    assert coco.fingerprint() == before != urban.fingerprint()
    named = [(step.name, need) for need in load(write(root, "{root}/coco}}", "{root}/coco/nowhere}}")).step("zero-shot").needs]
    (line,) = missing(named, {str(root / "coco"): "cocodataset.org"})
    assert line == f"{root}/coco/nowhere: does not exist; it comes from cocodataset.org; needed by zero-shot"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("urban1k:", "urban2k:", "there is no suite 'urban2k'; there are"),
        ("coco: {root}/coco}", "coco: {root}/coco}, weight: 0.3", "weight has no effect without a reranker"),
        ("memory: 8GiB", "memory: much", "memory: .*much"),
        ("wording-2", "loudly", "instruction must be one of first, seeded"),
    ],
)
def test_mistakes_are_told(root: Path, old: str, new: str, words: str):
    with pytest.raises(Mistakes, match=words):
        load(write(root, old, new))
