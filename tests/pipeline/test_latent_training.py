"""Latent attention through whole runs: trained in full or frozen, beside adapters, interrupted, and merged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from pipeline import training_data
from umr.errors import RecipeError
from umr.models import parts
from umr.models.embedder import Embedder
from umr.models.merging import merge
from umr.models.pooling import WEIGHTS, latent_attention
from umr.models.settings import ModelSettings
from umr.training import recipe as recipes
from umr.training.run import train

SIZES = {"latents": 5, "heads": 2, "head_width": 8, "multiplier": 1}
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_data.write_all(tmp_path_factory.mktemp("data"))


def recipe(data: Path, model: dict[str, Any] | None = None, **training: Any) -> recipes.Recipe:
    tree = training_data.recipe(data, **{"steps": 2, **training})
    tree["model"] |= {"pooling": "latent", "latent": SIZES} if model is None else model
    return recipes.parse(tree, "recipe")


def changed(before: Path, after: Path, file: str | Path = "model.safetensors") -> set[str]:
    one, other = load_file(before / file), load_file(after / file)
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize(
    "training", [{}, {"lora": LORA}, {"parts": ["pooling"]}, {"lora": LORA, "parts": ["projector", "pooling"]}], ids=str
)
def test_what_is_trained(data: Path, tmp_path: Path, training: dict[str, Any]):
    model = train(recipe(data, **training), out=tmp_path / "run")
    fresh = latent_attention(tmp_path, ModelSettings.load(model).latent, 128).state_dict()
    trained = load_file(model / WEIGHTS)
    # In the first step only the last maps have a gradient, in the second all others too.
    assert all((trained[name] - fresh[name]).abs().max() > 0 for name in trained)
    expected = (
        set(parts.PARTS)
        if not training
        else ({"language"} if "lora" in training else set()) | ({"projector"} if "projector" in training.get("parts", ()) else set())
    )
    assert {parts.part_of(name) for name in changed(data / "model", model)} == expected
    loaded = Embedder.load(model)
    assert loaded.engine.model.settings.pooling == "latent" and loaded.fingerprint != Embedder.load(data / "model").fingerprint


def test_a_frozen_pooling_stays_as_it_was(data: Path, tmp_path: Path):
    first = train(recipe(data), out=tmp_path / "first")
    second = train(recipe(data, {"path": str(first)}, parts=["language"]), out=tmp_path / "second")
    assert changed(first, second, WEIGHTS) == set()
    assert {parts.part_of(name) for name in changed(first, second)} == {"language"}


def test_an_interrupted_run_ends_as_a_straight_one(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from umr.training.trainer import StageTrainer

    settings = {"steps": 3, "save_every": 1, "lora": LORA}
    straight = train(recipe(data, **settings), out=tmp_path / "straight")
    real = StageTrainer.training_step

    def stop(self: StageTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(data, **settings), out=tmp_path / "again")
    monkeypatch.undo()
    again = train(recipe(data, **settings), out=tmp_path / "again")
    assert changed(straight, again, WEIGHTS) == changed(straight, again) == set()


def test_a_pooling_part_that_is_not_there(data: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match=r"training\.parts: this model has no pooling part"):
        train(recipe(data, {}, parts=["pooling"]), out=tmp_path / "run")
    with pytest.raises(RecipeError, match="a reranker has no pooling part"):
        recipes.parse({**training_data.recipe(data, parts=["pooling"]), "loss": {"kind": "rerank"}}, "recipe")
    with pytest.raises(RecipeError, match=r"model\.latent has no effect on a reranker"):
        recipes.parse({**training_data.recipe(data), "model": {"path": "x", "latent": SIZES}, "loss": {"kind": "rerank"}}, "recipe")
    with pytest.raises(RecipeError, match=r"model\.latent\.rows"):
        recipe(data, {"pooling": "latent", "latent": {"rows": 3}})


@pytest.mark.parametrize("own", [True, False])
def test_merging_keeps_the_pooling(tmp_path: Path, own: bool):
    """The base's, or the adapter's where it brings its own."""
    base = tiny.latent_checkpoint("qwen3-vl")
    model = Embedder.load(base, device="cpu")
    network = parts.add_lora(model.engine.model.network, 4, 8, 0.0, ["language"])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    model.engine.model.network = network.eval()
    network.save_pretrained(tmp_path / "adapter")
    if own:
        tiny.scramble(model.engine.model.latent, seed=1)
        from umr.models.pooling import save_latent_attention

        save_latent_attention(model.engine.model.latent, tmp_path / "adapter")
    items = [tiny.sample_items()[kind] for kind in ("text", "image+text")]
    expected = model.encode(items)
    assert merge(base, tmp_path / "adapter", tmp_path / "out") == []
    np.testing.assert_allclose(Embedder.load(tmp_path / "out").encode(items), expected, atol=1e-5)
    assert bool(changed(base, tmp_path / "out", WEIGHTS)) == own
