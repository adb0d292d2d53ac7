"""Pipeline files: references, changes from outside, one line for each mistake, and what is missing before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import small_pipeline
from umr.cli import main
from umr.errors import RecipeError
from umr.pipelines import fingerprints
from umr.pipelines.needs import is_hub_id, missing, needs_of
from umr.pipelines.pipeline import Mistakes, load
from umr.pipelines.references import fill, read_value, references
from umr.pipelines.runner import missing_for, planned


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, recipes and pipelines; not to be changed."""
    folder = tmp_path_factory.mktemp("small")
    small_pipeline.write(folder)
    small_pipeline.write_full(folder)
    return folder


def written(folder: Path, text: str) -> Path:
    (folder / "p.yaml").write_text(text)
    return folder / "p.yaml"


def mistakes_of(path: Path, *changes: str) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        load(path, list(changes))
    return [line.removeprefix(f"{path}: ") for line in caught.value.lines]


# References


def test_references_need_no_quotes_inside_braces():
    assert read_value("{seed: ${seed}, path: ${world}/a.csv, plain: 1}", "x") == {"seed": "${seed}", "path": "${world}/a.csv", "plain": 1}


def test_a_whole_reference_keeps_its_type_and_a_part_becomes_text():
    tree = {"a": "${n}", "b": ["x${n}y", "${other}"], "${n}": None}
    assert fill(tree, {"n": 3}) == {"a": 3, "b": ["x3y", "${other}"], 3: None}
    assert references(tree) == ("n", "other")


trees = st.recursive(st.text(max_size=8) | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner))


@given(trees)
def test_filling_nothing_changes_nothing(tree: Any):
    assert fill(tree, {}) == tree


def test_yaml_that_is_broken_is_shown_as_it_was_written():
    with pytest.raises(RecipeError, match=r"x: not valid YAML"):
        read_value("{a: ${b}, ]", "x")


# Loading


def test_a_pipeline_is_read_with_variables_and_references(root: Path):
    pipeline = load(root / "pipeline.yaml", ["steps=5"])
    assert [step.name for step in pipeline.steps] == ["start", "captions", "find", "after-captions", "after-find"]
    captions = pipeline.step("captions")
    assert captions.config["recipe"]["model"]["path"] == "${start}"
    assert captions.config["recipe"]["training"]["steps"] == 5
    assert captions.uses == ("start",)
    assert [need.value for need in captions.needs] == [str(root / "captions" / "captions.jsonl")]
    assert pipeline.folder == root / "run"
    assert load(root / "pipeline.yaml", out=root / "other").folder == root / "other"


def test_what_a_recipe_leaves_out_stays_left_out(root: Path):
    """A temperature that is not given is taken over from the stage before; written out as the default it would be reset."""
    assert "temperature" not in load(root / "pipeline.yaml").step("find").config["recipe"]["loss"]


@pytest.mark.parametrize("key", ["training.steps", "with.training.steps"])
def test_a_key_of_a_recipe_is_changed_from_outside(root: Path, key: str):
    pipeline = load(root / "pipeline.yaml", [f"stages.find.{key}=7", "stages.after-find.pools=[global]"])
    assert pipeline.step("find").config["recipe"]["training"]["steps"] == 7
    assert pipeline.step("after-find").config["pools"] == ["global"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("size=1", r"size: .* has no variable of this name \(it has seed, steps\)"),
        ("stages.nothing.a=1", "a change is of a variable, or stages.<name>.<key> with a name among start, captions"),
        ("stages.find.trainin.steps=1", "stages.find: .*unknown key 'trainin'"),
        ("stages.after-find.deep.er=1", "stages.after-find.deep: unknown key"),
        ("seed", "a change is written key=value"),
    ],
)
def test_a_change_without_a_place_is_refused(root: Path, change: str, message: str):
    with pytest.raises(RecipeError, match=message):
        load(root / "pipeline.yaml", [change])


def test_every_mistake_has_its_line_with_the_key(tmp_path: Path):
    path = written(
        tmp_path,
        """
name: bad name
stages:
  - {name: a, kind: world, size: huge}
  - {name: b, kind: init, texts: x, colour: red}
  - {name: c, kind: fly}
  - {name: d, kind: eval, model: m, benchmark: b, rerank_depth: 5}
more: 1
""",
    )
    found = mistakes_of(path)
    assert found[0].startswith("name: String should match")
    assert found[1].startswith("stages.a.size: Input should be 'mini', 'tiny', 'small' or 'medium'")
    assert found[2] == "stages.b.colour: unknown key; remove it or correct its name"
    assert found[3].startswith("stages.c: Input tag 'fly'")
    assert found[4] == "stages.d: rerank_depth has no effect without a reranker"
    assert found[5] == "more: unknown key; remove it or correct its name"


def test_wrong_names_and_references_are_told(tmp_path: Path):
    path = written(
        tmp_path,
        """
name: bad
variables: {twice: 1}
stages:
  - {name: vectors, kind: world}
  - {name: twice, kind: world}
  - {name: a, kind: init, texts: "${later}"}
  - {name: a, kind: init, texts: "${nobody}/x"}
  - {name: later, kind: init, texts: "${later}"}
""",
    )
    assert mistakes_of(path) == [
        "stages.vectors: the name is taken, for vectors, replaced lie beside the stages; choose another",
        "stages.twice: a variable has this name, too; rename one of them",
        "stages.a: two stages have this name; every name is used once",
        "stages.a: refers to a later stage, ${later}; a stage uses earlier ones only",
        "stages.a: ${nobody} is neither a variable nor a stage; there are vectors, twice, a, a, later",
        "stages.later: refers to itself, ${later}; a stage uses earlier ones only",
    ]


def test_the_settings_of_mining_and_scoring_are_checked_by_their_own_rules(root: Path):
    assert mistakes_of(root / "full.yaml", "stages.mine.deph=3", "stages.score.fraction=2") == [
        "stages.mine.deph: unknown key; remove it or correct its name",
        "stages.score.fraction: Input should be less than or equal to 1",
    ]


def test_config_hashes_change_with_what_a_stage_does_and_not_with_names_of_files(root: Path, tmp_path: Path):
    one, same = load(root / "pipeline.yaml"), load(root / "pipeline.yaml", out=tmp_path)
    assert [step.config_hash for step in one.steps] == [step.config_hash for step in same.steps]
    other = load(root / "pipeline.yaml", ["seed=1"])
    differing = [a.name for a, b in zip(one.steps, other.steps, strict=True) if a.config_hash != b.config_hash]
    assert differing == ["start"]


# What is missing


def test_a_dry_run_names_the_missing_file_and_its_source(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = written(
        tmp_path,
        f"""
name: real
folder: {tmp_path}/run
sources: {{{tmp_path}/M-BEIR: huggingface.co/datasets/TIGER-Lab/M-BEIR}}
stages:
  - name: train
    kind: train
    recipe: {root}/recipes/find.yaml
    with: {{model.path: owner/model, data.0.path: {tmp_path}/M-BEIR}}
  - {{name: measure, kind: eval, model: ./nowhere, benchmark: {root}/bench}}
""",
    )
    assert main(["run", str(path), "--dry-run"]) == 1
    out, err = capsys.readouterr()
    assert "train" in out
    assert "not run yet" in out
    lines = err.splitlines()
    assert lines[0].startswith(f"umr: error: {tmp_path}/M-BEIR/query: does not exist")
    assert lines[0].endswith("; it comes from huggingface.co/datasets/TIGER-Lab/M-BEIR; needed by train")
    assert lines[1] == "umr: error: nowhere: neither a model folder nor a hub id such as owner/name; needed by measure"
    assert len(lines) == 2
    assert not (tmp_path / "run").exists()


def test_a_partial_download_is_noticed_file_by_file(root: Path, tmp_path: Path):
    import shutil

    bench = Path(shutil.copytree(root / "bench", tmp_path / "bench"))
    for name in (
        "qrels/test/mbeir_wiki_task1_test_qrels.txt",
        "query/test/mbeir_shapes_task0_test.jsonl",
        "cand_pool/global/mbeir_union_test_cand_pool.jsonl",
        "mbeir_images/7-0.png",
    ):
        (bench / name).unlink()
    pipeline = load(root / "pipeline.yaml", [f"stages.after-captions.benchmark={bench}", f"stages.after-find.benchmark={bench}"])
    lines = missing_for(pipeline, planned(pipeline))
    both = "; needed by after-captions, after-find"
    assert set(lines) == {
        f"{bench}/qrels/test/mbeir_wiki_task1_test_qrels.txt: does not exist{both}",
        f"{bench}/query/test/mbeir_shapes_task0_test.jsonl: does not exist{both}",
        f"{bench}/cand_pool/global/mbeir_union_test_cand_pool.jsonl: does not exist; needed by after-captions",  # the other is local
        f"{bench}/mbeir_images/7-0.png: named in mbeir_fashioniq_task7_cand_pool.jsonl but does not exist{both}",
    }


def test_pools_that_are_not_searched_may_be_missing(root: Path, tmp_path: Path):
    import shutil

    bench = Path(shutil.copytree(root / "bench", tmp_path / "bench"))
    (bench / "cand_pool" / "local" / "mbeir_wiki_task1_cand_pool.jsonl").unlink()
    changes = [f"stages.{name}.benchmark={bench}" for name in ("after-captions", "after-find")]
    pipeline = load(root / "pipeline.yaml", [*changes, "stages.after-captions.pools=[global]"])
    missing = f"{bench}/cand_pool/local/mbeir_wiki_task1_cand_pool.jsonl: does not exist; needed by after-find"
    assert missing_for(pipeline, planned(pipeline)) == [missing]


def test_a_complete_pipeline_misses_nothing(root: Path):
    for name in ("pipeline.yaml", "full.yaml"):
        pipeline = load(root / name)
        assert missing_for(pipeline, planned(pipeline)) == []


@pytest.mark.parametrize("kind", ["mine", "score", "train"])
def test_a_task_of_a_file_that_mixes_several_needs_no_file_of_its_own(root: Path, kind: str):
    tree, task = str(root / "tree"), ["mixed_task0"]
    scored = {"kind": "scored", "path": tree, "scores": "${scores}", "settings": task}
    recipe = {"model": {"path": "${model}"}, "data": [scored], "loss": {"kind": "distillation"}}
    config = {"recipe": recipe} if kind == "train" else {"model": "${model}", "benchmark": tree, "settings": {"settings": task}}
    needs = needs_of(kind, config)
    assert [need.role for need in needs] == ["benchmark"] and missing([(kind, need) for need in needs], {}) == []
    strict = {**recipe, "data": [{"kind": "mbeir", "path": tree, "settings": ["nothing_task0"]}]}
    absent = missing([("train", need) for need in needs_of("train", {"recipe": strict})], {})
    assert absent == [f"{tree}/query/train/mbeir_nothing_task0_train.jsonl: does not exist; needed by train"]


def test_hub_ids_are_told_from_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert is_hub_id("Qwen/Qwen2-VL-7B-Instruct")
    assert not any(map(is_hub_id, ("models/missing", "./a/b", "/a/b", "name", "a/b/c")))


# Fingerprints


def test_a_file_from_outside_is_known_by_content_while_it_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import os

    file = tmp_path / "a.csv"
    file.write_text("one")
    first = fingerprints.of_source(file)
    os.utime(file, (1, 1))
    assert fingerprints.of_source(file) == first
    monkeypatch.setattr(fingerprints, "_READ_UP_TO", 2)
    large = fingerprints.of_source(file)
    os.utime(file, (2, 2))
    assert fingerprints.of_source(file) != large
    assert fingerprints.of_source(tmp_path / "none") == fingerprints.MISSING


def test_products_are_equal_when_names_and_contents_are(tmp_path: Path):
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "file").write_text(text)
    one, same, other = (fingerprints.of_product(tmp_path / name) for name in "abc")
    assert one == same != other


# The guide


def test_the_examples_of_the_guide_are_right(tmp_path: Path):
    import re

    from umr.pipelines.stages import KINDS
    from umr.study import load as load_study
    from umr.study.nodes import matrix

    repository = Path(__file__).parents[2]
    guide = (repository / "docs" / "pipelines.md").read_text("utf-8")
    pipeline, study = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "pipeline.yaml").write_text(pipeline)
    (tmp_path / "study.yaml").write_text(study)
    (tmp_path / "instructed.yaml").write_text((repository / "recipes" / "world-instructed.yaml").read_text("utf-8"))
    assert [step.name for step in load(tmp_path / "pipeline.yaml").steps] == ["world", "start", "instructed", "after-instructed"]
    # Per seed one world and one start; per variant training and measurement.
    assert len(matrix(load_study(tmp_path / "study.yaml")).nodes) == 3 * (1 + 1 + 2 + 2)
    for kind, stage in KINDS.items():
        (row,) = re.findall(rf"^\| `{kind}` \|.*$", guide, re.MULTILINE)
        keys = {field.alias or name for name, field in stage.model_fields.items()} - {"name", "kind"}
        assert keys <= set(re.findall(r"`([a-z_]+)`", row))
