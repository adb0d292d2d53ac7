"""LLaVA-NeXT among the backbones: what its transformers model wants instead of a Qwen-VL's arguments.

transformers always reads an image as one crop of the whole and tiles of an enlarged one. MM-Embed shows the crop alone
(spec/mm-embed-and-mbeir.md 1.2); its features are made here with the model's own parts and handed over ready to be spliced in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from umr.errors import ModelError
from umr.models.media import first_uses
from umr.rendering.llava_vision import to_crops

FAMILY = "llava_next"
"""transformers' `model_type`."""
_TEXT = ("input_ids", "attention_mask", "position_ids", "cu_seq_lens_q", "max_length_q")


def check_sizes(processor: Any, config: Any, where: str | Path) -> None:
    """Raise `ModelError` when the processor prepares other images than the model reads."""
    prepared = (processor.image_processor.size, processor.image_processor.crop_size)
    sides = {int(side) for size in prepared for side in (size.shortest_edge, size.height, size.width) if side is not None}
    wanted = int(config.vision_config.image_size)
    if sides != {wanted}:
        raise ModelError(
            f"{where}: its image processor makes squares of {', '.join(map(str, sorted(sides)))} pixels and its vision tower reads "
            f"{wanted}; make size and crop_size in preprocessor_config.json (or processor_config.json) {wanted}"
        )


def arguments(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """A collated batch as keyword arguments of transformers' `LlavaNextModel`.

    Args:
        model: the model itself, without a head or adapters around it.
        batch: as `backbone.collate` makes it, or in one line. An image of one crop is shown without tiles.
    """
    accepted = {name: batch[name] for name in _TEXT if name in batch}
    if "pixel_values" not in batch:
        return accepted
    vision = model.config.vision_config
    crops_TCHW = to_crops(batch["pixel_values"], vision.image_size, vision.patch_size)
    places = batch.get("image_places", range(len(batch["image_sizes"])))
    sizes_I2 = batch["image_sizes"][first_uses(places)]
    if len(crops_TCHW) > len(sizes_I2):
        features = model.get_image_features(crops_TCHW, sizes_I2, return_dict=True).pooler_output
    else:
        features = whole_image_features(model, crops_TCHW, sizes_I2)
    output = BaseModelOutputWithPooling(pooler_output=[features[place] for place in places])
    return accepted | {"mm_encoder_outputs": {"image": output}}


def whole_image_features(model: Any, crops_ICHW: torch.Tensor, sizes_I2: torch.Tensor) -> list[torch.Tensor]:
    """What the language model sees of I images without tiles: for each (patches + 1, D), the learned end of a line last."""
    config = model.config
    layers = [config.vision_feature_layer] if isinstance(config.vision_feature_layer, int) else list(config.vision_feature_layer)
    states = model.vision_tower(crops_ICHW, output_hidden_states=layers, return_dict=True).hidden_states
    chosen_IPC = torch.cat([states[layer] for layer in layers], -1)
    strategy = config.vision_feature_select_strategy
    if strategy == "default":
        chosen_IPC = chosen_IPC[:, 1:]  # the class token
    features_IPD = model.multi_modal_projector(chosen_IPC)
    packed, _ = model.pack_image_features(features_IPD.split(1), sizes_I2, strategy, image_newline=model.image_newline)
    return list(packed)
