"""A short contrastive training of LLaVA-NeXT through the ordinary trainer: which parts change, adapters and projector together."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline import training_data
from umr.items import Item
from umr.models import parts
from umr.models.embedder import Embedder
from umr.training import recipe as recipes
from umr.training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("llava")
    training_data.write_tree(root / "tree")
    training_data.write_captions(root / "captions", training_data.SCENES[::5])
    training_data.write_pairs(root / "pairs")
    training_data.write_model(root / "model", "llava-next")
    return root


def trained(data: Path, out: Path, model: dict[str, Any] | None = None, **training: Any) -> Path:
    tree = training_data.recipe(data, steps=2, learning_rate=1e-2, **training)
    tree["model"] |= model or {}
    return train(recipes.parse(tree, "recipe"), out=out)


def changed(data: Path, model: Path) -> set[str]:
    one, other = (load_file(folder / "model.safetensors") for folder in (data / "model", model))
    assert one.keys() == other.keys()
    return {parts.part_of(name) for name in one if not torch.equal(one[name], other[name])}


def test_adapters_on_the_language_model_and_the_projector_in_full_as_mm_embed_is_trained(data: Path, tmp_path: Path):
    lora = {"rank": 8, "alpha": 64, "dropout": 0.0, "parts": ["language"]}
    model = trained(data, tmp_path / "run", lora=lora, parts=["projector"])
    assert changed(data, model) == {"language", "projector"}
    one, other = (load_file(folder / "model.safetensors") for folder in (data / "model", model))
    different = {name for name in one if not torch.equal(one[name], other[name])}
    assert {"image_newline", "multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_1.bias"} <= different
    assert not any("norm" in name or "embed" in name for name in different), "the language model changes through its adapters alone"
    loaded = Embedder.load(model, device="cpu")
    assert (loaded.engine.model.settings.image_tiles, loaded.engine.renderer.template.name) == ("global", "mm-embed")
    items = [Item.of(text="a red ring"), Item.of(image=training_data.picture(training_data.SCENES[3], random.Random(0)))]
    before = Embedder.load(data / "model", device="cpu").encode(items)
    assert np.abs(loaded.encode(items) - before).max(1).min() > 1e-3


def test_parts_in_full_with_tiles_and_causal_attention(data: Path, tmp_path: Path):
    settings = {"image_tiles": "anyres", "attention": "causal", "pooling": "last"}
    model = trained(data, tmp_path / "run", settings, parts=["vision"], gradient_checkpointing=True)
    assert changed(data, model) == {"vision"}
    kept = Embedder.load(model, device="cpu").engine.model.settings
    assert (kept.image_tiles, kept.attention, kept.pooling) == ("anyres", "causal", "last")


def test_the_loss_falls(data: Path, tmp_path: Path):
    tree = training_data.recipe(data, steps=25, learning_rate=2e-3)
    tree["data"] = tree["data"][1:2]
    tree["loss"] = {"temperature": 0.1}
    train(recipes.parse(tree, "recipe"), out=tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").open()]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
