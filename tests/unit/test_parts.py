from typing import Any

import pytest
import torch

from tiny import FAMILIES, checkpoint, sample_items, text_checkpoint
from umr.errors import RecipeError
from umr.models.embedder import Embedder
from umr.models.parts import PARTS, add_lora, freeze_all_but, merge_lora, part_of


def network(family: str) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(checkpoint(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_the_part_where_it_lives(family: str):
    model = network(family)
    projector = [model.visual.merger, *getattr(model.visual, "deepstack_merger_list", [])]
    members = {"language": list(model.language_model.parameters()), "projector": [p for m in projector for p in m.parameters()]}
    in_projector = {id(parameter) for parameter in members["projector"]}
    members["vision"] = [parameter for parameter in model.visual.parameters() if id(parameter) not in in_projector]
    expected = {id(parameter): part for part, parameters in members.items() for parameter in parameters}
    found = {id(parameter): part_of(name) for name, parameter in model.named_parameters()}
    assert found == expected and set(found.values()) == set(PARTS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", [("language",), ("projector",), ("vision",), ("language", "projector")])
def test_freezing_and_adapters_touch_their_parts_alone(family: str, parts: tuple[str, ...]):
    model = network(family)
    freeze_all_but(model, parts)
    assert {part_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad} == set(parts)
    assert all(parameter.requires_grad == (part_of(name) in parts) for name, parameter in model.named_parameters())
    adapted = add_lora(network(family), 2, 4, 0.0, parts)
    names = [name.removeprefix("base_model.model.") for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert {part_of(name) for name in names} == set(parts) and all("lora_" in name for name in names)


def test_llavas_parameters_have_their_parts():
    model = network("llava-next")
    members = {"language": model.language_model, "projector": model.multi_modal_projector, "vision": model.vision_tower}
    expected = {id(parameter): part for part, module in members.items() for parameter in module.parameters()}
    expected[id(model.image_newline)] = "projector"
    assert {id(parameter): part_of(name) for name, parameter in model.named_parameters()} == expected


@pytest.mark.parametrize("family", ["llava-next", "qwen3-vl"])
def test_adapters_on_one_part_and_another_in_full(family: str):
    adapted = add_lora(network(family), 2, 4, 0.0, ["language"], ["projector"])
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert {(part_of(name), "lora_" in name) for name in trained} == {("language", True), ("projector", False)}
    whole = [name for name, _ in network(family).named_parameters() if part_of(name) == "projector"]
    assert len(whole) == sum(part_of(name) == "projector" for name in trained)
    with pytest.raises(RecipeError, match="no nonsense part"):
        add_lora(network(family), 2, 4, 0.0, ["language"], ["nonsense"])


def test_adapters_sit_on_every_linear_layer_of_the_language_model():
    adapted = add_lora(network("qwen2.5-vl"), 2, 4, 0.0, ["language"])
    layers = {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_parts_that_are_not_there_are_named():
    from transformers import AutoModel

    text = AutoModel.from_pretrained(text_checkpoint())
    with pytest.raises(RecipeError, match="no vision part"):
        freeze_all_but(text, ["language", "vision"])
    with pytest.raises(RecipeError, match="no linear layers in projector"):
        add_lora(text, 2, 4, 0.0, ["projector"])
    with pytest.raises(RecipeError, match="no nonsense part"):
        freeze_all_but(text, ["nonsense"])
    freeze_all_but(text, ["language"])
    assert all(parameter.requires_grad for parameter in text.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_adapters_give_the_vectors_of_the_adapted_model(family: str):
    embedder = Embedder.load(checkpoint(family), device="cpu")
    items = list(sample_items().values())
    before = embedder.encode(items)
    holder = embedder.engine.model
    holder.network = add_lora(holder.network, 4, 8, 0.0, PARTS)
    assert abs(embedder.encode(items) - before).max() < 1e-6, "fresh adapters change nothing"
    with torch.no_grad():
        for name, parameter in holder.network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    adapted = embedder.encode(items)
    assert abs(adapted - before).max(1).min() > 1e-3
    holder.network = merge_lora(holder.network)
    assert abs(embedder.encode(items) - adapted).max() < 1e-5
    assert not any("lora" in name for name, _ in holder.network.named_parameters())
    assert merge_lora(holder.network) is holder.network
