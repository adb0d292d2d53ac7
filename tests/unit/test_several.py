"""Several benchmarks in one report: an M-BEIR tree and text-retrieval sets, in `umr eval` and in a pipeline's stage."""

import json

import pyarrow.parquet as pq
import pytest

from umr.data.benchmark import open_benchmark
from umr.errors import RecipeError
from umr.evaluation import evaluate
from umr.evaluation.several import evaluate_each, is_text, text_average, to_json
from umr.pipelines import measuring, report
from umr.pipelines.manifest import Manifest
from umr.pipelines.needs import missing, needs_of
from umr.pipelines.stages import EvalStage
from umr.progress import quiet
from unit.mbeir_fixture import SETTINGS, BagEncoder, write_tree
from unit.text_set import write_set


@pytest.fixture(autouse=True)
def _silent():
    with quiet():
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    write_tree(folder / "tree")
    write_set(folder / "things")
    write_set(folder / "more", queries=14)
    return folder


def readers(root, *names):
    return [open_benchmark(root / name) for name in names]


def test_each_is_measured_as_on_its_own(root, tmp_path):
    encoder = BagEncoder()
    found = evaluate_each(encoder, readers(root, "tree", "things", "more"), work_dir=tmp_path)
    assert list(found) == ["tree", "things", "more"] and [is_text(one) for one in found.values()] == [False, True, True]
    for name, result in found.items():
        assert result == evaluate(encoder, root / name, work_dir=tmp_path)
    scores = [found[name].settings[0].pools["local"].metrics["ndcg@10"] for name in ("things", "more")]
    assert text_average(found) == pytest.approx(sum(scores) / 2) and text_average({"tree": found["tree"]}) is None
    content = json.loads(to_json(found))
    assert [one["name"] for one in content["benchmarks"]] == ["tree", "things", "more"]
    assert {**content["benchmarks"][1]} == {"name": "things", **json.loads(found["things"].to_json())}
    assert to_json({"tree": found["tree"]}) == found["tree"].to_json()


def test_tasks_are_of_any_of_them(root, tmp_path):
    found = evaluate_each(BagEncoder(), readers(root, "tree", "things", "more"), tasks=["wiki_task1", "more_task10"], work_dir=tmp_path)
    assert {name: [one.setting for one in result.settings] for name, result in found.items()} == {
        "tree": ["wiki_task1"],
        "more": ["more_task10"],
    }
    with pytest.raises(RecipeError, match="none of the benchmarks has a task 'nowhere_task1' in split 'test'"):
        evaluate_each(BagEncoder(), readers(root, "tree", "things"), tasks=["nowhere_task1"])


def test_choices_about_global_pools_are_for_those_that_have_one(root, tmp_path):
    found = evaluate_each(BagEncoder(), readers(root, "tree", "things"), work_dir=tmp_path, modality_filter=True)
    assert found["tree"].mixed_pool == "global-filtered" and found["things"].mixed_pool is None
    with pytest.raises(RecipeError, match="none of the benchmarks has a global pool"):
        evaluate_each(BagEncoder(), readers(root, "things", "more"), modality_filter=True)
    with pytest.raises(RecipeError, match="one pool of texts"):
        evaluate_each(BagEncoder(), readers(root, "things"), modality_filter=True)
    with pytest.raises(RecipeError, match="two of the benchmarks are called 'things'"):
        evaluate_each(BagEncoder(), readers(root, "things", "things"))


@pytest.fixture
def staged(root, tmp_path, monkeypatch):
    """Runs a stage with a real encoder that is no checkpoint."""

    def run(name, *benchmarks, **more):
        stage = EvalStage.model_validate({"kind": "eval", "name": name, "model": "m", "benchmark": list(benchmarks), **more})
        monkeypatch.setattr(measuring, "_embedder", lambda config: BagEncoder(name))
        (tmp_path / name).mkdir()
        metrics = EvalStage.run(stage.config(root), tmp_path / name, tmp_path / "vectors")
        return Manifest(name, "eval", {}, "", {}, "", metrics, {}, 1.0, "", "", 1)

    return run


def test_a_stage_reports_both_before_and_after(root, tmp_path, staged):
    both = [str(root / name) for name in ("tree", "things", "more")]
    manifests = {name: staged(name, *both) for name in ("before", "after")}
    metrics = manifests["before"].metrics
    assert {"local", "global", "text", "modality@1"} <= metrics.keys()
    content = json.loads((tmp_path / "before" / "result.json").read_text())
    assert [one["name"] for one in content["benchmarks"]] == ["tree", "things", "more"]
    hits = pq.read_table(tmp_path / "before" / "hits.parquet").to_pylist()
    assert {row["setting"] for row in hits} == {*SETTINGS, "things_task10", "more_task10"}
    things = [row["main"] for row in hits if row["setting"] in ("things_task10", "more_task10")]
    assert 100 * sum(things) / len(things) == pytest.approx(metrics["text"], abs=1e-3)
    report.write("both", tmp_path, manifests)
    stages = json.loads((tmp_path / "report.json").read_text())["stages"]
    assert stages[1]["settings"]["things_task10"].keys() == {"text"} and "local" in stages[1]["settings"]["wiki_task1"]
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Text retrieval</h2>" in page and page.index("more_task10") > page.index("<h2>Text retrieval</h2>")
    assert [column.header for column in report.table(manifests).columns][2:] == ["local", "global", "modality@1", "text", "seconds"]


def test_a_stage_of_texts_alone_and_one_of_two_trees(root, tmp_path, staged):
    alone = staged("alone", str(root / "things"))
    assert alone.metrics.keys() == {"text"}
    assert json.loads((tmp_path / "alone" / "result.json").read_text())["settings"][0]["setting"] == "things_task10"
    write_tree(tmp_path / "second")
    with pytest.raises(RecipeError, match="one M-BEIR tree and any text-retrieval sets"):
        staged("two", str(root / "tree"), str(tmp_path / "second"))


def test_what_a_pipeline_needs_of_a_text_set(root, tmp_path):
    def lines(kind, config):
        return missing([("s", need) for need in needs_of(kind, config)], {})

    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    config = {"model": str(model), "benchmark": [str(root / "things"), "${world}/text_retrieval"], "split": "test"}
    assert lines("eval", config) == []
    assert [line.split(":")[0] for line in lines("eval", {**config, "split": "nowhere"})] == [str(root / "things/qrels/nowhere.tsv")]
    recipe = {
        "model": {"path": str(model)},
        "data": [{"kind": "text_retrieval", "path": str(root / "things"), "mined": str(tmp_path / "gone")}],
    }
    assert [line.split(":")[0] for line in lines("train", {"recipe": recipe})] == [str(tmp_path / "gone")]
    own = write_set(tmp_path / "own")
    (own / "queries.jsonl").unlink()
    recipe["data"][0] = {"kind": "text_retrieval", "path": str(own)}
    assert "queries.jsonl: does not exist" in lines("train", {"recipe": recipe})[0]
