"""The shipped recipes for real checkpoints and real data: they parse, they chain, and their heads say what they cost."""

import re
from pathlib import Path

import pytest

from umr import study
from umr.pipelines import pipeline as pipelines
from umr.training import recipe as recipes

ROOT = Path(__file__).parents[2] / "recipes"
FAMILIES = ("umarvel-qwen2vl-7b", "umarvel-qwen3vl-4b")
STAGES = ("text", "captions", "instructed", "hard", "reranker", "distilled")
TABLE = {  # spec/umarvel.md 1.7: rank, alpha, learning rate, epochs, queries a batch
    "text": (64, 128, 2e-4, 2, 576),
    "captions": (128, 256, 1e-4, 1, 480),
    "instructed": (128, 256, 4e-4, 1, 3840),
    "hard": (128, 256, 1.5e-5, 1, 1088),
    "reranker": (128, 256, 2e-5, 1, 512),
    "distilled": (128, 256, 1e-5, 1, 128),
}
MM_EMBED = {  # spec/mm-embed-and-mbeir.md 1.4: learning rate, length, queries a batch
    "random": (1e-4, {"epochs": 2}, 1024),
    "hard": (1e-4, {"epochs": 2}, 512),
    "text-to-text": (2e-5, {"steps": 4500}, 512),
}
EVERY_STAGE = [*((family, stage) for family in FAMILIES for stage in STAGES), *(("mm-embed-7b", stage) for stage in MM_EMBED)]
HEAD = ("# hardware ", "# time ", "# disk ", "# data ", "# expected ", "# not paper ")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_the_hyper_parameters_of_the_paper(family: str, stage: str):
    recipe = recipes.load(ROOT / family / f"{stage}.yaml")
    training = recipe.training
    assert recipe.name == f"{family}-{stage}"
    assert training.lora is not None and training.lora.parts == ["language"]
    assert (training.lora.rank, training.lora.alpha, training.learning_rate, training.epochs, training.batch_size) == TABLE[stage]
    assert training.batch_size % 8 == 0
    assert (training.schedule, training.warmup_ratio, training.weight_decay, training.lora.dropout) == ("cosine", 0.03, 0, 0.05)
    if stage != "reranker":
        assert (recipe.model.attention, recipe.model.pooling, training.gradient_cache) == ("bidirectional", "mean", True)
        assert recipe.loss.learn_temperature == (stage in ("instructed", "hard", "distilled"))


@pytest.mark.parametrize("stage", MM_EMBED)
def test_a_stage_of_mm_embed_has_the_hyper_parameters_that_are_known(stage: str):
    recipe = recipes.load(ROOT / "mm-embed-7b" / f"{stage}.yaml")
    training, (learning_rate, length, batch_size) = recipe.training, MM_EMBED[stage]
    assert (training.learning_rate, training.batch_size) == (learning_rate, batch_size)
    assert all(getattr(training, key) == value for key, value in length.items())
    assert training.lora is not None and (training.lora.rank, training.lora.alpha, training.lora.parts) == (8, 64, ["language"])
    assert training.parts == ["projector", "pooling"] and recipe.model.pooling == "latent"
    assert recipe.loss.negatives == (0 if stage == "random" else 1)


def test_mm_embed_mines_as_published_and_starts_its_second_stage_anew():
    steps = {step.name: step for step in pipelines.load(ROOT / "mm-embed-7b" / "pipeline.yaml").steps}
    assert set(steps["hard"].uses) == {"mined"}, "from the base again"
    settings = steps["mined"].config["settings"]
    assert (settings["depth"], settings["negatives"], settings["select"]) == (50, 1, "random")
    assert settings["modality_aware"] == {"wrong_modality_share": 0.5, "right_after_rank": 45}
    assert steps["eval-reranked"].config["rerank_depth"] == 10


@pytest.mark.parametrize(("family", "stage"), EVERY_STAGE)
def test_a_head_says_what_a_stage_costs(family: str, stage: str):
    head = (ROOT / family / f"{stage}.yaml").read_text("utf-8").split("\nname:")[0]
    assert all(f"\n{word}" in head for word in HEAD)
    assert "has not been run at full size" in head
    factors, hours = re.search(r"\n# +(\S+ x \S+ x \S+ FLOP.*?) / \(0\.4 x 989e12 x 3600 s\) = ([\d.]+) hours", head).groups()
    product = 1.0
    for factor in factors.replace(" FLOP", "").split(" x "):
        product *= float(factor)
    assert product / (0.4 * 989e12 * 3600) == pytest.approx(float(hours), rel=0.06)
    assert f"about {hours} GPU-hours" in head


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stages_chain(family: str):
    pipeline = pipelines.load(ROOT / family / "pipeline.yaml")
    steps = {step.name: step for step in pipeline.steps}
    assert [name for name in steps if steps[name].kind == "train"] == ["text", "captions", "instructed", "hard", "reranker", "distilled"]
    uses = {name: set(step.uses) for name, step in steps.items()}
    assert uses["captions"] == {"text"} and uses["instructed"] == {"captions"}
    assert uses["hard"] == {"instructed", "mined"} and uses["reranker"] == {"mined-local"}
    assert uses["distilled"] == {"hard", "scored", "teacher-weights"}
    assert uses["eval-plus"] == {"distilled", "reranker", "plus-weights"}
    assert steps["mined"].config["settings"]["max_similarity"] == 0.7
    assert steps["mined-local"].config["settings"]["max_similarity"] is None
    assert str(pipeline.folder).endswith(f"runs/{family}")


@pytest.mark.parametrize("family", FAMILIES)
def test_recipes_alone_look_where_the_pipeline_writes(family: str):
    """Each stage can be run by hand after the pipeline has run those before it."""
    pipeline = pipelines.load(ROOT / family / "pipeline.yaml")
    products = {f"runs/{family}/{step.name}/{step.product}" for step in pipeline.steps}
    named = set()
    for stage in STAGES:
        text = (ROOT / family / f"{stage}.yaml").read_text("utf-8")
        named |= set(re.findall(r": (runs/\S+)", text))
    assert named and named <= products


def test_on_world_every_stage_looks_where_the_pipeline_writes():
    pipeline = pipelines.load(ROOT / "umarvel-world" / "pipeline.yaml")
    products = {f"runs/umarvel-world/{step.name}/{step.product}" for step in pipeline.steps}
    for stage in STAGES:
        named = re.findall(r": (runs/\S+)", (ROOT / "umarvel-world" / f"{stage}.yaml").read_text("utf-8"))
        lost = [path for path in named if not any(f"{path}/".startswith(f"{product}/") for product in products)]
        assert len(named) >= 2 and not lost, f"{stage}: {lost}"


def test_the_study_asks_what_the_paper_asks():
    asked = study.load(ROOT / "study-world.yaml")
    assert [table.paper for table in asked.tables] == [f"Table {number}" for number in range(1, 7)]
    assert asked.seeds == (0, 1, 2)
    variants = {table.paper: {variant.name: variant for variant in table.variants} for table in asked.tables}
    assert variants["Table 1"]["bidirectional, mean, no prompt"].paper == {"local": 57.2, "global": 55.2}
    assert variants["Table 5"]["in-batch and filtered"].paper == {"local": 61.7, "global": 59.9}
    assert len({variant.stage for variant in variants["Table 6"].values()}) == 5


def test_the_study_of_mm_embed_compares_negatives_on_three_seeds():
    asked = study.load(ROOT / "study-mm-embed-world.yaml")
    assert asked.seeds == (0, 1, 2) and asked.metric == "global"
    negatives = asked.tables[0]
    assert [variant.name for variant in negatives.variants] == [
        "random, in the batch",
        "the first of the list",
        "any of the list",
        "modality-aware",
    ]
    mined = {variant.name: dict(variant.pipelines)[0].steps for variant in negatives.variants}
    settings = {name: next(step for step in steps if step.name == "mined").config["settings"] for name, steps in mined.items()}
    assert settings["modality-aware"]["modality_aware"] is not None
    assert settings["any of the list"]["modality_aware"] is None and settings["any of the list"]["pools"] == ["global"]
