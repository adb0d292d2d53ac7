from pathlib import Path
from typing import Any

import pytest
import yaml

from umr.errors import RecipeError
from umr.training import recipe as recipes

ROOT = Path(__file__).parents[2]
YAMLS = sorted((ROOT / "recipes").rglob("*.yaml"))
SHIPPED = [path for path in YAMLS if "\ntraining:" in path.read_text("utf-8")]  # the others are pipelines and studies
TEXT = """
name: stage-1
model: {path: model}
data:
  - {kind: mbeir, path: World, weights: {cirr_task7: 2}}
  - {kind: captions, path: World/captions.jsonl}
training: {batch_size: 8, steps: 10, learning_rate: 1e-3}
"""


def tree(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(TEXT), **changes}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(TEXT)
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_recipe_in_the_project_is_valid(path: Path):
    recipe = recipes.load(path)
    assert recipes.parse(yaml.safe_load(recipes.dump(recipe)), "dump") == recipe
    head = path.read_text().split("name:")[0]
    assert head.startswith("# ") and head.count("\n") >= 1, "says what it is, and for which machine"


def test_there_are_recipes():
    assert len(SHIPPED) >= 4


def test_what_is_not_said_has_its_default(file: Path):
    recipe = recipes.load(file)
    assert (recipe.loss.temperature, recipe.training.gradient_cache, recipe.training.lora) == (None, True, None)
    assert recipe.training.learning_rate == 0.001


def test_a_dump_says_everything_and_reads_back(file: Path):
    recipe = recipes.load(file, ["training.lora.rank=8"])
    written = yaml.safe_load(recipes.dump(recipe))
    assert written["loss"] == {
        "kind": "infonce",
        "temperature": None,
        "learn_temperature": False,
        "both_ways": False,
        "mask_false_negatives": True,
        "negatives": 0,
        "in_batch": True,
        "matryoshka": None,
    }
    assert written["training"]["lora"] == {"rank": 8, "alpha": 128, "dropout": 0.05, "parts": ["language"]}
    assert recipes.parse(written, "dump") == recipe


@pytest.mark.parametrize(
    ("override", "get"),
    [
        ("training.steps=99", lambda r: r.training.steps == 99),
        ("training.learning_rate=2e-4", lambda r: r.training.learning_rate == 2e-4),
        ("data.1.path=elsewhere=here", lambda r: r.data[1].path == "elsewhere=here"),
        ("data.0.settings=[cirr_task7]", lambda r: r.data[0].settings == ["cirr_task7"]),
        ("training.lora.parts=[vision, language]", lambda r: r.training.lora.parts == ["vision", "language"]),
        ("loss.learn_temperature=true", lambda r: r.loss.learn_temperature),
        ("model.dimension=null", lambda r: r.model.dimension is None),
    ],
)
def test_overrides(file: Path, override: str, get: Any):
    assert get(recipes.load(file, [override]))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.steps", "'training.steps': an override is written key=value"),
        ("training.step=5", "unknown key 'training.step'"),
        ("model.vision.size=5", "unknown key 'model.vision'"),
        ("data.0.weight=5", "unknown key 'data.0.weight'"),  # of a whole tree; its settings have weights
        ("data.5.path=x", "has no place 'data.5.path'"),
        ("data.first.path=x", "has no place 'data.first.path'"),
        ("name.x=1", "has no place 'name.x'"),
        ("training.steps=[1", "has no place 'training.steps'"),
        ("training.batch_size=many", "training.batch_size: "),
        ("training.batch_size=1", "training.batch_size: "),
        ("training.learning_rate=-1", "training.learning_rate: "),
        ("training.schedule=cos", "training.schedule: "),
        ("training.parts=[everything]", "training.parts.0: "),
        ("data.0.kind=mystery", "data.0: "),
        ("data.0.weights={cirr_task7: 0}", "data.0.weights.cirr_task7: "),
        ("loss.temperature=0", "loss.temperature: "),
        ("name=a/b", "name: "),
        ("data=[]", "data: "),
    ],
)
def test_mistakes_name_their_key(file: Path, override: str, says: str):
    with pytest.raises(RecipeError) as error:
        recipes.load(file, [override])
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("override", ["training.epochs=1", "training.steps=null"])
def test_steps_or_epochs_and_not_both(file: Path, override: str):
    with pytest.raises(RecipeError, match=r"training: give either training\.steps or training\.epochs"):
        recipes.load(file, [override])


def test_a_part_is_trained_in_full_or_by_adapters(file: Path):
    assert recipes.load(file, ["training.parts=[language]"]).training.parts == ["language"]
    assert recipes.load(file, ["training.parts=[projector]", "training.lora.rank=4"]).training.parts == ["projector"]
    with pytest.raises(RecipeError, match=r"training\.parts and training\.lora\.parts both name language"):
        recipes.load(file, ["training.parts=[projector, language]", "training.lora.rank=4"])


def test_captions_hold_no_negatives():
    captions = [{"kind": "captions", "path": "captions.jsonl"}]
    recipes.parse(tree(data=captions), "recipe")
    with pytest.raises(RecipeError, match=r"loss\.negatives has no effect"):
        recipes.parse(tree(data=captions, loss={"negatives": 2}), "recipe")
    assert recipes.parse(tree(loss={"negatives": 2}), "recipe").loss.negatives == 2


@pytest.mark.parametrize("text", ["a: [", "- a list", "just words", "", "\t"])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=r"broken\.yaml: ") as error:
        recipes.load(file)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: cannot be read"):
        recipes.load(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary\.yaml: cannot be read"):
        recipes.load(tmp_path / "binary.yaml")


SCORED = {"kind": "scored", "path": "World", "scores": "scores"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"loss": {"kind": "distillation"}}, "data: distillation learns from scored lists"),
        ({"data": [SCORED]}, "kind scored has no effect without loss.kind=distillation"),
        ({"data": [SCORED], "loss": {"kind": "distillation", "both_ways": True}}, "unknown key 'loss.both_ways'"),
        ({"loss": {"kind": "rerank"}, "model": {"path": "m", "pooling": "last"}}, "model.pooling has no effect on a reranker"),
        ({"loss": {"kind": "rerank", "choices": 1}}, "loss.choices=1 leaves nothing to choose from"),
        ({"loss": {"kind": "rerank", "negatives": 0}}, "leave nothing to learn"),
        ({"loss": {"kind": "rerank"}, "data": [{"kind": "captions", "path": "c"}]}, "a reranker needs wrong candidates"),
        ({"loss": {"in_batch": False}}, "loss.in_batch=false needs loss.negatives above 0"),
        ({"loss": {"in_batch": False, "negatives": 2, "both_ways": True}}, "and loss.both_ways=false"),
        ({"loss": {"in_batch": False, "negatives": 2, "mask_false_negatives": False}}, "loss.mask_false_negatives has no effect"),
    ],
)
def test_a_setting_without_effect_on_this_kind_of_loss_is_an_error(changes: dict[str, Any], complaint: str):
    with pytest.raises(RecipeError, match=complaint):
        recipes.parse(tree(**changes), "recipe")


@pytest.mark.parametrize(
    ("matryoshka", "complaint"),
    [
        ({"dimensions": []}, "loss.matryoshka.dimensions: "),
        ({"dimensions": [0]}, "loss.matryoshka.dimensions.0: "),
        ({"dimensions": [32, 16, 32]}, "loss.matryoshka: dimensions names 32 twice"),
        ({"dimensions": [32, 16], "weights": [1]}, "loss.matryoshka: 1 weights for 2 dimensions"),
        ({"dimensions": [32], "weights": [0]}, "loss.matryoshka.weights.0: "),
        ({"dimensions": [32], "lengths": [32]}, "unknown key 'loss.matryoshka.lengths'"),
    ],
)
def test_mistakes_in_shorter_lengths(matryoshka: dict[str, Any], complaint: str):
    for changes in ({"loss": {"matryoshka": matryoshka}}, {"data": [SCORED], "loss": {"kind": "distillation", "matryoshka": matryoshka}}):
        with pytest.raises(RecipeError, match="recipe: ") as error:
            recipes.parse(tree(**changes), "recipe")
        assert complaint in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(RecipeError, match=r"unknown key 'loss\.matryoshka'"):
        recipes.parse(tree(loss={"kind": "rerank", "matryoshka": matryoshka}), "recipe")


def test_gradient_caching_has_no_effect_on_a_reranker():
    training = {"batch_size": 8, "steps": 10, "learning_rate": 1e-3, "gradient_cache": False}
    with pytest.raises(RecipeError, match=r"training.gradient_cache has no effect on a reranker"):
        recipes.parse(tree(loss={"kind": "rerank", "strangers": 1}, training=training), "recipe")
    training.pop("gradient_cache")
    assert recipes.parse(tree(loss={"kind": "rerank", "strangers": 1}, training=training), "recipe").loss.negatives == 1


def test_distillation_and_its_lists():
    recipe = recipes.parse(tree(data=[SCORED], loss={"kind": "distillation", "weight": "weights.json"}), "recipe")
    assert recipe.loss.weight == "weights.json" and recipe.data[0].pools == ["local", "global"]
    assert recipes.parse(yaml.safe_load(recipes.dump(recipe)), "dump") == recipe
