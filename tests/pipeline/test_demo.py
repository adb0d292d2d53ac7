"""The demo from end to end with little of everything: what it writes, and that a second run reuses all of it."""

import json
from pathlib import Path

import pytest

from umr.demo import collection, run_demo
from umr.demo.story import PIPELINE
from umr.pipelines import load
from umr.pipelines.runner import Place, begin, finish

ASKED, TRAINED = ["scenes_task0", "scenes_task3", "edits_task7"], "twins_task4"
KEPT = {"train": "4", "val": "06", "test": "06"}
"""First characters of the candidates' ids in the global pools: the data sets of the settings above."""
FEW = [
    *(f"stages.{name}.training.{few}" for name in ("captions", "instructed", "hard", "reranker") for few in ("steps=2", "batch_size=16")),
    *(f"stages.{name}.data.0.settings=[{TRAINED}]" for name in ("instructed", "hard", "reranker")),
    *(f"stages.{name}.data.0.weights={{}}" for name in ("instructed", "hard")),
    *(f"stages.{name}.tasks={ASKED}" for name in ("eval-untrained", "eval-instructed", "eval-hard", "eval-plus")),
    *(
        f"stages.{name}.{few}"
        for name in ("mined", "mined-random")
        for few in (f"settings=[{TRAINED}]", "fraction=0.2", "max_relative=null")
    ),
    f"stages.weights.tasks={ASKED[:1]}",
    "stages.weights.depth=2",
    "stages.eval-plus.rerank_depth=2",
]
STAGES = ["untrained", "instructed", "hard", "plus"]


def put_world(world: Path, out: Path) -> None:
    """A World with small global pools as the finished stage of a demo of seed 0."""
    for split, kept in KEPT.items():
        file = world / "cand_pool" / "global" / f"mbeir_union_{split}_cand_pool.jsonl"
        lines = [line for line in file.read_text().splitlines(keepends=True) if json.loads(line)["did"][0] in kept]
        file.unlink()  # a link to one that others use
        file.write_text("".join(lines))
    pipeline = load(PIPELINE, FEW, out / "stages")
    step, folder = pipeline.step("world"), pipeline.folder / "world"
    place = Place(folder, folder, {}, folder)
    begin(step, place, {}, fresh=False)
    world.rename(folder / "world")
    finish(step, place, {}, 0.0)


@pytest.mark.slow
def test_demo_writes_its_report_and_reuses_what_is_done(tmp_path: Path, own_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, made = tmp_path / "demo", json.loads((own_world / "world.json").read_text())
    sizes = {name: made["counts"][name]["local_pool"] for name in ASKED}
    put_world(own_world, out)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(collection, "PER_SETTING", 2)
    shown: list[object] = []
    content = run_demo(out, seed=0, show=shown.append, overrides=FEW)

    written = json.loads((out / "report.json").read_text())
    assert written == content
    assert set(written) == {"seconds", "machine", "seed", "stages"}
    assert [stage["name"] for stage in written["stages"]] == STAGES
    for stage in written["stages"]:
        hits = [scores["hit@5"] for scores in stage["local"].values()]
        assert list(stage["local"]) == list(stage["global"]) == ASKED
        assert all(0 <= scores["hit@1"] <= scores["hit@5"] <= 100 for scores in stage["local"].values())
        assert stage["local_average"] == pytest.approx(sum(hits) / len(hits), abs=0.01)
        assert 0 <= stage["global_average"] <= stage["local_average"]
        assert {name: scores["pool size"] for name, scores in stage["local"].items()} == sizes
    assert sum(stage["seconds"] for stage in written["stages"]) == pytest.approx(written["seconds"], abs=0.5)

    page = (out / "report.html").read_text()
    assert page.count("class='card query'") == len(ASKED)
    assert page.count("class=plot") == 3
    assert (out / page.split("<a href='")[1].split("'")[0]).is_file()  # the audit of mining
    assert "http" not in page.replace("http-equiv", "")
    assert any("report.html" in str(line) for line in shown)
    assert sum(str(line).startswith("hard: hit@5") for line in shown) == 1
    assert any(f"umr serve --collection {out / 'collection.umr'}" in str(line) for line in shown)
    assert (out / "collection.umr" / "collection.json").is_file()

    shown.clear()
    times = {path: path.stat().st_mtime_ns for path in (out / "stages").rglob("*") if path.is_file() and path.parent != out / "stages"}
    again = run_demo(out, seed=0, show=shown.append, overrides=FEW)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert sum(": skip," in str(line) for line in shown) == 13
    assert again == content


def test_the_packaged_pipeline_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe and key is checked without the repository's folder; the seed reaches data, weights and training."""
    monkeypatch.chdir(tmp_path)
    pipeline = load(PIPELINE, ["seed=3"], tmp_path / "out")
    assert [step.name for step in pipeline.steps if step.needs] == []
    for step in pipeline.steps:
        if step.kind in ("world", "init"):
            assert step.config["seed"] == 3
        if step.kind == "train":
            assert step.config["recipe"]["training"]["seed"] == 3
