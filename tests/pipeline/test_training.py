"""Whole training runs of tiny models: what comes out, what is left alone, and that interruptions leave no trace."""

import copy
import hashlib
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import warm
from pipeline import training_data
from tiny import FAMILIES
from umr.errors import DataError, MediaError, ModelError, RecipeError
from umr.items import Item
from umr.models import parts
from umr.models.embedder import Embedder
from umr.models.tiny import make_checkpoint
from umr.training import learners
from umr.training import recipe as recipes
from umr.training import run as running
from umr.training.run import train
from umr.training.trainer import COMPLETE, StageTrainer

LORA = {"rank": 4, "alpha": 8, "dropout": 0.2, "parts": ["language", "projector"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds of data, and a tiny model of each family. Not to be changed."""
    root = training_data.write_all(tmp_path_factory.mktemp("data"))
    for family in FAMILIES[:-1]:
        training_data.write_model(root / family, family)
    shutil.copytree(root / "model", root / "qwen3-vl")
    return root


def recipe(data: Path, family: str = "qwen3-vl", **training: Any) -> recipes.Recipe:
    tree = training_data.recipe(data, **training)
    return recipes.parse({**tree, "model": {"path": str(data / family)}}, "recipe")


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


def sha(model: Path) -> str:
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").open()]


def changed_parts(before: Path, after: Path) -> set[str]:
    one, other = weights(before), weights(after)
    assert one.keys() == other.keys()
    return {parts.part_of(name) for name in one if not torch.equal(one[name], other[name])}


# What a run leaves behind.


def test_a_run_leaves_a_model_and_the_record_of_how_it_came_about(data: Path, tmp_path: Path):
    checked = recipe(data)
    model = train(checked, out=tmp_path / "run")
    assert model == tmp_path / "run" / "model"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["log.jsonl", "model", "recipe.yaml", "run.json"]
    assert recipes.load(tmp_path / "run" / "recipe.yaml") == checked
    log, record = log_of(tmp_path / "run"), json.loads((tmp_path / "run" / "run.json").read_text())
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(list(line.values())).all() for line in log)
    assert log[0]["temperature"] != log[-1]["temperature"], "the temperature is learned"
    loaded = Embedder.load(model)
    assert record["steps"] == 6 and record["seed"] == 0 and len(record["data"]) == 3
    assert record["started_from"] == Embedder.load(data / "model").fingerprint != record["model"] == loaded.fingerprint
    assert record["final_loss"] == log[-1]["loss"]
    assert record["temperature"] == loaded.engine.model.settings.temperature == pytest.approx(log[-1]["temperature"], abs=1e-6)
    assert record["versions"]["torch"] == torch.__version__ and record["queries_per_second"] > 0
    assert record["not_for_plain_sentence_transformers"] == []
    assert changed_parts(data / "model", model) == set(parts.PARTS)


def test_the_next_stage_goes_on_with_the_learned_temperature(data: Path, tmp_path: Path):
    first = train(recipe(data, steps=2, learning_rate=0.02), out=tmp_path / "first")
    learned = Embedder.load(first).engine.model.settings.temperature
    tree = training_data.recipe(data, steps=1, learning_rate=1e-6)
    tree |= {"model": {"path": str(first)}, "loss": {"learn_temperature": True}}
    assert abs(learned - 0.05) > 0.01 and abs(learned - 0.1) > 1e-4
    train(recipes.parse(tree, "recipe"), out=tmp_path / "second")
    assert log_of(tmp_path / "second")[-1]["temperature"] == pytest.approx(learned, rel=1e-4)
    tree["loss"] = {"temperature": 0.05}
    train(recipes.parse(tree, "recipe"), out=tmp_path / "stated")
    assert log_of(tmp_path / "stated")[-1]["temperature"] == pytest.approx(0.05)


def test_weight_decay_leaves_the_temperature_alone(data: Path, tmp_path: Path):
    # So large a decay that it would take the temperature from 0.1 to 0.8 in six steps, whatever the gradient says.
    train(recipe(data, weight_decay=300.0, schedule="constant_with_warmup", warmup_ratio=0), out=tmp_path / "run")
    assert log_of(tmp_path / "run")[-1]["temperature"] == pytest.approx(0.1, abs=0.01)


def test_equal_recipes_give_equal_weights_and_another_seed_does_not(data: Path, tmp_path: Path):
    runs = {name: train(recipe(data, steps=2, lora=LORA, seed=seed), out=tmp_path / name) for name, seed in (("a", 0), ("b", 0), ("c", 1))}
    assert sha(runs["a"]) == sha(runs["b"]) != sha(runs["c"])


def test_how_the_work_is_cut_changes_nothing(data: Path, tmp_path: Path):
    small = {"steps": 2, "learning_rate": 1e-4}
    reference = weights(train(recipe(data, **small), out=tmp_path / "reference"))
    ways = {
        "one chunk": {"chunk_tokens": 100_000},
        "no cache": {"gradient_cache": False},
        "rows": {"chunk_tokens": 1},
        "worker": {"workers": 1},
    }
    for name, way in ways.items():
        other = weights(train(recipe(data, **small, **way), out=tmp_path / name))
        assert max((other[key] - reference[key]).abs().max().item() for key in other) < 1e-5, name


@pytest.mark.parametrize("lora", [None, LORA])
def test_half_precision_trains(data: Path, tmp_path: Path, lora: dict | None):
    full = log_of(train(recipe(data, lora=lora, steps=3), out=tmp_path / "full").parent)
    half = log_of(train(recipe(data, lora=lora, steps=3, precision="bfloat16"), out=tmp_path / "half").parent)
    assert [line["loss"] for line in half] != [line["loss"] for line in full], "bfloat16 is used"
    assert [line["loss"] for line in half] == pytest.approx([line["loss"] for line in full], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "half" / "model").values())


def test_a_half_precision_model_with_adapters_trains(data: Path, tmp_path: Path):
    tree = training_data.recipe(data, lora=LORA, steps=3, learning_rate=0.01)
    tree["model"] = {"path": str(data / "model"), "dtype": "bfloat16"}
    model = train(recipes.parse(tree, "recipe"), out=tmp_path / "run")
    assert all(tensor.dtype == torch.bfloat16 for tensor in weights(model).values())
    losses = [line["loss"] for line in log_of(tmp_path / "run")]
    assert np.isfinite(losses).all() and len(set(losses)) == 3


# Training some parts.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("trained", [["language"], ["projector", "vision"]], ids=str)
def test_full_training_of_some_parts_leaves_the_others_alone(data: Path, tmp_path: Path, family: str, trained: list[str]):
    model = train(recipe(data, family, steps=2, parts=trained), out=tmp_path / "run")
    assert changed_parts(data / family, model) == set(trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_of_one_part_are_merged_into_a_folder_that_loads(data: Path, tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch):
    kept = []
    monkeypatch.setattr(learners.parts, "merge_lora", lambda network: (kept.append(copy.deepcopy(network)), parts_merge(network))[1])
    lora = {**LORA, "parts": ["language"]}
    model = train(recipe(data, family, steps=3, learning_rate=0.02, lora=lora), out=tmp_path / "run")
    assert changed_parts(data / family, model) == {"language"}
    items = [
        Item.of(text="a red ring"),
        Item.of(image=training_data.picture(training_data.SCENES[3], random.Random(0)), text="make it blue"),
    ]
    loaded, adapted = Embedder.load(model), Embedder.load(model)
    adapted.engine.model.network = kept[0].eval()
    assert any("lora_" in name for name, _ in kept[0].named_parameters())
    assert np.abs(loaded.encode(items) - adapted.encode(items)).max() < 1e-5
    assert np.abs(loaded.encode(items) - Embedder.load(data / family).encode(items)).max() > 1e-3


parts_merge = parts.merge_lora


@pytest.mark.parametrize("lora", [None, {**LORA, "parts": ["language"]}], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(
    data: Path, tmp_path: Path, family: str, lora: dict | None, monkeypatch: pytest.MonkeyPatch
):
    seen: list[dict[str, torch.Tensor]] = []
    active: list[bool] = []
    step = StageTrainer.training_step

    def remembering(self: StageTrainer, model: torch.nn.Module, *rest: Any) -> torch.Tensor:
        loss = step(self, model, *rest)
        seen.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        active.append(any(getattr(module, "gradient_checkpointing", False) for module in model.modules()))
        return loss

    monkeypatch.setattr(StageTrainer, "training_step", remembering)
    for checkpointing in (False, True):
        train(recipe(data, family, steps=1, lora=lora, gradient_checkpointing=checkpointing), out=tmp_path / str(checkpointing))
    without, with_it = seen
    assert active == [False, True] and without.keys() == with_it.keys() and len(without) > 5
    largest = max(grad.abs().max().item() for grad in without.values())
    for name, grad in without.items():
        assert (with_it[name] - grad).abs().max() <= 1e-5 * max(grad.abs().max().item(), 1e-2 * largest), name


# Interruptions.


def kill_after(file: Path, out: Path, checkpoint: int) -> None:
    """Start a run in a process of its own, and kill it as soon as a checkpoint is complete."""
    process = warm.umr("train", file, "--out", out)
    try:
        end = time.monotonic() + 300
        while not (out / f"checkpoint-{checkpoint}" / COMPLETE).exists():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.002)
    finally:
        process.kill()
    assert not (out / "run.json").exists()


def test_a_run_that_is_killed_twice_ends_as_a_straight_one(data: Path, tmp_path: Path):
    checked = recipe(data, steps=18, save_every=4, log_every=3, lora=LORA, workers=1, learning_rate=0.003)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(checked.model_dump(mode="json")))
    straight = train(checked, out=tmp_path / "straight")
    kill_after(file, tmp_path / "killed", 4)
    kill_after(file, tmp_path / "killed", 8)
    again = warm.umr("train", file, "--out", tmp_path / "killed")
    assert again.wait() == 0, again.stderr
    assert sha(tmp_path / "killed" / "model") == sha(straight)
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "straight")
    assert [line["step"] for line in log_of(straight.parent)] == [3, 4, 6, 8, 9, 12, 15, 16, 18]
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["log.jsonl", "model", "recipe.yaml", "run.json"]


class Stop(Exception):
    """A run ends here."""


def stop_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = StageTrainer.training_step

    def stopping(self: StageTrainer, *rest: Any) -> torch.Tensor:
        if self.state.global_step == step:
            raise Stop
        return original(self, *rest)

    monkeypatch.setattr(StageTrainer, "training_step", stopping)


def interrupt(checked: recipes.Recipe, out: Path, step: int) -> None:
    """Run up to a step and no further."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        stop_before(patch, step)
        train(checked, out=out)


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that all interrupted ones are compared with: six steps, a checkpoint after every other."""
    return train(recipe(data), out=tmp_path_factory.mktemp("straight") / "run").parent


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped before its last step: to be copied and gone on with."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    interrupt(recipe(data), out, 5)
    return out


@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_full_training_goes_on_exactly(data: Path, straight: Path, stopped: Path, tmp_path: Path, step: int):
    if step == 5:
        shutil.copytree(stopped, tmp_path / "run")
    else:
        interrupt(recipe(data), tmp_path / "run", step)
    saved = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
    assert saved == [f"checkpoint-{done}" for done in (2, 4) if done <= step]
    assert sha(train(recipe(data), out=tmp_path / "run")) == sha(straight / "model")
    assert log_of(tmp_path / "run") == log_of(straight)


@pytest.mark.parametrize("damage", ["no mark", "half a file", "nothing but the folder", "gone"])
def test_a_checkpoint_that_was_not_finished_is_passed_over(data: Path, straight: Path, stopped: Path, tmp_path: Path, damage: str):
    out = Path(shutil.copytree(stopped, tmp_path / "run"))
    newest = out / "checkpoint-4"
    (newest / COMPLETE).unlink()
    if damage == "half a file":
        for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
            (newest / name).write_bytes((newest / name).read_bytes()[:100])
    elif damage != "no mark":
        shutil.rmtree(newest)
        if damage == "nothing but the folder":
            newest.mkdir()
    starts = []
    with pytest.MonkeyPatch.context() as patch:
        original = StageTrainer.training_step
        patch.setattr(StageTrainer, "training_step", lambda self, *rest: (starts.append(self.state.global_step), original(self, *rest))[1])
        assert sha(train(recipe(data), out=out)) == sha(straight / "model")
    assert starts == [2, 3, 4, 5]
    assert log_of(out) == log_of(straight)


def test_a_log_line_that_was_cut_off_is_written_anew(data: Path, straight: Path, tmp_path: Path):
    interrupt(recipe(data), tmp_path / "run", 3)
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    train(recipe(data), out=tmp_path / "run")
    assert log_of(tmp_path / "run") == log_of(straight)


def test_an_end_between_the_model_and_its_record(data: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, write = tmp_path / "run", running.write_text

    def stopping(path: Path, text: str) -> None:
        if path.name == "run.json":
            raise Stop
        write(path, text)

    monkeypatch.setattr(running, "write_text", stopping)
    with pytest.raises(Stop):
        train(recipe(data), out=out)
    monkeypatch.undo()
    assert (out / "model").is_dir() and not (out / "run.json").exists()
    assert sha(train(recipe(data), out=out)) == sha(straight / "model")
    records = [json.loads((run / "run.json").read_text()) for run in (out, straight)]
    assert records[0]["final_loss"] == records[1]["final_loss"] and records[0]["model"] == records[1]["model"]
    assert log_of(out) == log_of(straight)


@pytest.mark.parametrize("what", ["model", "captions"])
def test_a_run_does_not_go_on_with_what_has_changed_under_the_same_path(data: Path, tmp_path: Path, what: str):
    root, out = tmp_path / "data", tmp_path / "run"
    for name in ("qwen3-vl", "captions"):
        shutil.copytree(data / name, root / name)
    section = {"kind": "captions", "path": str(root / "captions" / "captions.jsonl")}
    tree = {**training_data.recipe(data), "model": {"path": str(root / "qwen3-vl")}, "data": [section], "loss": {}}
    checked = recipes.parse(tree, "recipe")
    interrupt(checked, out, 3)
    if what == "model":
        shutil.rmtree(root / "qwen3-vl")
        make_checkpoint("qwen3-vl", root / "qwen3-vl", map(training_data.caption, training_data.SCENES), seed=1)
    else:
        file = root / "captions" / "captions.jsonl"
        file.write_text("".join(reversed(file.open().readlines())))
    with pytest.raises(RecipeError, match=rf"{what}.* is not what this run began with; --restart begins anew"):
        train(checked, out=out)
    assert train(checked, out=out, restart=True).is_dir() and not (out / "begun.json").exists()


def test_a_finished_run_is_not_repeated(data: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = Path(shutil.copytree(straight, tmp_path / "run"))
    monkeypatch.setattr(running, "open_sources", None)  # whoever opens data, trains
    assert train(recipe(data), out=out) == out / "model"


def test_another_recipe_in_the_same_folder_is_refused_and_restart_replaces_it(data: Path, straight: Path, tmp_path: Path):
    out = Path(shutil.copytree(straight, tmp_path / "run"))
    with pytest.raises(RecipeError, match=r"holds a run of another recipe .*choose another --out, or --restart") as error:
        train(recipe(data, steps=2), out=out)
    assert "\n" not in str(error.value) and sha(out / "model") == sha(straight / "model")
    (out / "leftover").write_text("of the earlier run")
    train(recipe(data, steps=2), out=out, restart=True)
    assert len(log_of(out)) == 2 and not (out / "leftover").exists()


def test_a_folder_that_is_no_run_is_never_removed(data: Path, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(RecipeError, match="is no run folder"):
            train(recipe(data), out=tmp_path, restart=restart)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# What cannot be trained.


def fails(tree: dict[str, Any], out: Path, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as error:
        train(recipes.parse(tree, "recipe"), out=out)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", [0, 1, 2])
def test_data_that_is_not_there(data: Path, tmp_path: Path, section: int):
    tree = training_data.recipe(data)
    tree["data"][section]["path"] = str(tmp_path / "nowhere")
    fails(tree, tmp_path / "run", DataError, "nowhere")


def test_a_model_that_is_not_there(data: Path, tmp_path: Path):
    tree = training_data.recipe(data)
    tree["model"]["path"] = str(tmp_path)
    fails(tree, tmp_path / "run", ModelError, "not a model folder")


def test_a_batch_that_does_not_divide_by_its_tasks(data: Path, tmp_path: Path):
    fails(training_data.recipe(data, tasks_per_batch=5), tmp_path / "a", RecipeError, "tasks_per_batch=5, but the data has only 4")
    fails(training_data.recipe(data, batch_size=10, tasks_per_batch=4), tmp_path / "b", RecipeError, "batch_size=10 is no multiple")


def test_a_temperature_outside_what_can_be_learned(data: Path, tmp_path: Path):
    tree = training_data.recipe(data)
    tree["loss"] = {"temperature": 2.0, "learn_temperature": True}
    fails(tree, tmp_path / "run", RecipeError, r"loss\.temperature=2: a learned temperature is kept between")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_is_none_is_one_clear_error_wherever_it_is_read(data: Path, tmp_path: Path, workers: int):
    shutil.copytree(data / "captions", tmp_path / "captions")
    (tmp_path / "captions" / "3.png").write_bytes(b"not a picture")
    tree = training_data.recipe(data, workers=workers, batch_size=24)
    tree["data"], tree["loss"] = [{"kind": "captions", "path": str(tmp_path / "captions" / "captions.jsonl")}], {}
    fails(tree, tmp_path / "run", MediaError, r"3\.png")


# Learning.


@pytest.mark.slow
def test_a_tiny_model_learns_to_find_pictures_it_has_never_seen(tmp_path: Path):
    unseen = training_data.SCENES[::4]
    seen = [scene for scene in training_data.SCENES if scene not in unseen] * 10
    random.Random(0).shuffle(seen)
    captions = training_data.write_captions(tmp_path / "captions", seen)
    tree = {
        "name": "learning",
        "model": {"path": str(training_data.write_model(tmp_path / "model"))},
        "data": [{"kind": "captions", "path": str(captions)}],
        "loss": {"temperature": 0.07, "learn_temperature": True, "both_ways": True},
        "training": {
            "batch_size": 32,
            "steps": 100,
            "learning_rate": 7e-4,
            "warmup_ratio": 0.05,
            "weight_decay": 0.05,
            "gradient_cache": False,
            "chunk_tokens": 4096,
            "workers": 0,
        },
    }
    model = train(recipes.parse(tree, "recipe"), out=tmp_path / "run")
    losses = [line["loss"] for line in log_of(tmp_path / "run")]
    assert losses[-1] < 0.5 * losses[0]

    draw_from = random.Random(99)
    texts = [Item.of(text=training_data.caption(scene)) for scene in unseen]
    pictures = [Item.of(image=training_data.picture(scene, draw_from)) for scene in unseen]

    def found(path: Path, k: int) -> float:
        embedder = Embedder.load(path)
        scores = embedder.encode(texts, "query") @ embedder.encode(pictures).T
        return float(((scores > np.diag(scores)[:, None]).sum(1) < k).mean())

    # Combinations of colour, shape and place of which none was trained on; chance is 1 in 30.
    assert len(unseen) == 30 and found(tmp_path / "model", 1) < 0.2
    assert found(model, 1) >= 0.6 and found(model, 5) >= 0.9
