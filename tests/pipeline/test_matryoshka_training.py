"""From a recipe with shorter lengths to a model that says which it has, and gives them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import training_data
from umr.errors import ModelError, RecipeError
from umr.items import Item
from umr.models.embedder import Embedder
from umr.serving.loading import assemble
from umr.serving.settings import ServerSettings
from umr.training import recipe as recipes
from umr.training.run import train

ITEMS = [Item.of(text=text) for text in ("a red ring", "two of them moving", "left")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_data.write_all(tmp_path_factory.mktemp("data"))


def recipe(data: Path, *lengths: int, model: Path | None = None) -> recipes.Recipe:
    tree = training_data.recipe(data, steps=1, batch_size=4)
    tree["loss"] |= {"matryoshka": {"dimensions": list(lengths)}} if lengths else {}
    tree["model"]["path"] = str(model or data / "model")
    return recipes.parse(tree, "recipe")


def test_a_trained_model_says_its_lengths_and_gives_them(data: Path, tmp_path: Path) -> None:
    model = train(recipe(data, 16, 64), out=tmp_path / "run")
    assert json.loads((model / "umr.json").read_text())["matryoshka"] == [64, 16]
    embedder = Embedder.load(model)
    assert embedder.dimensions == (16, 64, 128)
    whole_ND = embedder.encode(ITEMS)
    for length in embedder.dimensions:
        short_ND = embedder.encode(ITEMS, dimension=length)
        expected_ND = whole_ND[:, :length] / np.linalg.norm(whole_ND[:, :length], axis=1, keepdims=True)
        assert short_ND.dtype == np.float32 and np.allclose(short_ND, expected_ND, atol=1e-6)
        assert np.allclose(Embedder.load(model, dimension=length).encode(ITEMS), expected_ND, atol=1e-5)
        assert embedder.encode([], dimension=length).shape == (0, length)
    for length in (32, 0, 129):
        with pytest.raises(ModelError, match=rf"not trained for vectors of {length} components, but for 16, 64, 128"):
            embedder.encode(ITEMS, dimension=length)
    assert Embedder.load(model, dimension=48).dimensions == (16, 48), "only what is still shorter"
    _fingerprints(model, embedder, tmp_path)
    _served(embedder)
    again = train(recipe(data, model=model), out=tmp_path / "again")
    assert Embedder.load(again).dimensions == (128,), "a stage that does not train them does not claim them"


def _fingerprints(model: Path, embedder: Embedder, tmp_path: Path) -> None:
    """Lengths change no vector, hence no fingerprint; ones that cannot be are refused."""
    other = Path(shutil.copytree(model, tmp_path / "other"))
    settings = json.loads((other / "umr.json").read_text())
    (other / "umr.json").write_text(json.dumps({name: value for name, value in settings.items() if name != "matryoshka"}))
    assert Embedder.load(other).fingerprint == embedder.fingerprint and Embedder.load(other).dimensions == (128,)
    for wrong in (128, 0, "16"):
        (other / "umr.json").write_text(json.dumps({**settings, "matryoshka": [wrong]}))
        with pytest.raises(ModelError, match="must lie between 1 and 127"):
            Embedder.load(other)


def _served(embedder: Embedder) -> None:
    """A server offers what the folder says, and what it is told besides."""
    service = assemble(ServerSettings(), {"m": embedder}, {}, (32,))
    assert service.embedders["m"].lengths == (16, 32, 64, 128)
    service.close()
    with pytest.raises(ModelError, match="trained for 16 components; leave --dimensions 16 out"):
        assemble(ServerSettings(), {"m": embedder}, {}, (16,))


def test_lengths_that_the_model_does_not_have_are_refused_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    for length in (128, 500):
        with pytest.raises(RecipeError, match=rf"matryoshka\.dimensions: {length} is not below the model's own 128"):
            train(recipe(data, 16, length), out=tmp_path / str(length))


def test_a_run_from_before_a_key_goes_on(data: Path, tmp_path: Path) -> None:
    """Its `recipe.yaml` lacks the key; what counts is what it says."""
    checked = recipe(data)
    model = train(checked, out=tmp_path / "run")
    file = tmp_path / "run" / "recipe.yaml"
    file.write_text(file.read_text().replace("  matryoshka: null\n", ""))
    assert "matryoshka" not in file.read_text() and train(checked, out=tmp_path / "run") == model
