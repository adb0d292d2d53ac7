"""Modalities in pipelines: what an eval stage draws and counts, a calibrate stage, and searches that use filter and calibration."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import tiny
from umr.cli import main
from umr.pipelines.pipeline import Mistakes, load
from umr.pipelines.report import table
from umr.pipelines.runner import run
from umr.progress import quiet
from unit import mbeir_fixture

PIPELINE = """
name: modalities
folder: {root}/run
stages:
  - {name: plain, kind: eval, model: {model}, benchmark: {root}/bench}
  - {name: filtered, kind: eval, model: {model}, benchmark: {root}/bench, modality_filter: true, tasks: [shapes_task0]}
  - {name: offsets, kind: calibrate, model: {model}, benchmark: {root}/bench}
  - {name: calibrated, kind: eval, model: {model}, benchmark: {root}/bench, pools: [global], calibration: ${offsets}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("modalities")
    mbeir_fixture.write_tree(root / "bench")
    for folder, ending in (("query", ".jsonl"), ("qrels", "_qrels.txt")):
        for file in (root / "bench" / folder / "test").iterdir():
            (root / "bench" / folder / "val").mkdir(exist_ok=True)
            (root / "bench" / folder / "val" / file.name.replace(f"_test{ending}", f"_val{ending}")).write_bytes(file.read_bytes())
    pools = root / "bench" / "cand_pool" / "global"
    (pools / "mbeir_union_val_cand_pool.jsonl").write_bytes((pools / "mbeir_union_test_cand_pool.jsonl").read_bytes())
    return root


@pytest.fixture(scope="module")
def model() -> Path:
    return tiny.checkpoint("qwen3-vl")


def write(root: Path, model: Path, text: str = PIPELINE) -> Path:
    file = root / "pipeline.yaml"
    file.write_text(text.replace("{root}", str(root)).replace("{model}", str(model)))
    return file


def test_stages_and_their_report(root: Path, model: Path):
    with quiet():
        manifests = run(load(write(root, model)))
    folder = root / "run"
    results = {name: json.loads((folder / name / "result.json").read_text()) for name in ("plain", "filtered", "calibrated")}
    for name, pool in (("plain", "global"), ("filtered", "global-filtered"), ("calibrated", "global-calibrated")):
        accuracy = results[name]["averages"][pool]["modality_accuracy@1"]
        assert manifests[name].metrics["modality@1"] == accuracy
        assert manifests[name].metrics[pool] == results[name]["averages"][pool]["main"]
        assert (folder / name / "modality.png").read_bytes().startswith(b"\x89PNG")
    assert "global" not in manifests["filtered"].metrics | manifests["calibrated"].metrics
    calibration = json.loads((folder / "offsets" / "calibration.json").read_text())
    assert calibration["retriever"] == results["plain"]["model"]["fingerprint"] and calibration["split"] == "val"
    assert results["calibrated"]["search"]["global-calibrated"]["calibration"]["offsets"] == calibration["offsets"]
    assert manifests["offsets"].metrics["text -> image"] == calibration["offsets"]["text"]["image"]
    out = StringIO()
    Console(width=120, file=out).print(table(manifests))
    head, row = (next(line for line in out.getvalue().splitlines() if word in line).split() for word in ("modality@1", " calibrated "))
    assert head == ["stage", "kind", "local", "global", "global-filtered", "global-calibrated", "modality@1", "seconds"]
    assert f"{manifests['calibrated'].metrics['modality@1']:.1f}" in row
    html = (folder / "report.html").read_text()
    assert "Modality accuracy" in html and html.count("modality of first results") == 3
    report = {stage["name"]: stage for stage in json.loads((folder / "report.json").read_text())["stages"]}
    assert report["filtered"]["settings"]["shapes_task0"]["modality@1"] == 100


def test_the_commands(root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    common = ["--model", str(model), "--benchmark", str(root / "bench"), "--work", str(tmp_path / "work")]
    assert main(["calibrate", *common, "--out", str(tmp_path / "offsets.json")]) == 0
    assert "image,text" in capsys.readouterr().out
    found = ["--calibration", str(tmp_path / "offsets.json"), "--json", str(tmp_path / "out.json"), "--heat-map", str(tmp_path / "map.png")]
    assert main(["eval", *common, "--pool", "global", *found]) == 0
    out = capsys.readouterr().out
    assert "global-calibrated" in out and "what comes first" in out
    offsets = json.loads((tmp_path / "offsets.json").read_text())["offsets"]
    assert json.loads((tmp_path / "out.json").read_text())["search"]["global-calibrated"]["calibration"]["offsets"] == offsets
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "other.json").write_text(json.dumps({"offsets": offsets, "retriever": "another"}))
    assert main(["eval", *common, "--calibration", str(tmp_path / "other.json")]) == 1
    assert "fitted for the model another" in capsys.readouterr().err
    for words, line in (
        (["--pool", "local", "--modality-filter"], "modality_filter has no effect without the global pool"),
        (["--pool", "local", "--heat-map", "x.png"], "--heat-map has no effect without the global pool"),
        (["--weights-of-another-model"], "--weights-of-another-model has no effect without --weights"),
    ):
        assert main(["eval", *common, *words]) == 1
        assert line in capsys.readouterr().err
    assert main(["calibrate", *common, "--split", "test", "--out", str(tmp_path / "never.json")]) == 1
    assert "fit them on val" in capsys.readouterr().err and not (tmp_path / "never.json").exists()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("pools: [local], modality_filter: true", "modality_filter has no effect without the global pool"),
        ("pools: [local], calibration: x.json", "calibration has no effect without the global pool"),
        ("modality_filter: true, calibration: x.json", "calibration has no effect with modality_filter"),
        ("weights_of_another_model: true", "weights_of_another_model has no effect without weights"),
    ],
)
def test_keys_without_effect_are_mistakes(root: Path, tmp_path: Path, keys: str, words: str):
    text = f"name: wrong\nstages:\n  - {{name: one, kind: eval, model: {{model}}, benchmark: {{root}}/bench, {keys}}}\n"
    file = tmp_path / "wrong.yaml"
    file.write_text(text.replace("{root}", str(root)).replace("{model}", "org/model"))
    with pytest.raises(Mistakes, match=words):
        load(file)
