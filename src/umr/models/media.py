"""Images and videos on their way through a vision tower: each distinct one of a batch once, however many rows show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from umr.rendering.vision import VIDEO, VisionBlock


def arguments(blocks: Sequence[VisionBlock]) -> dict[str, Any]:
    """What a collated batch holds of its images, or of its videos.

    Args:
        blocks: all of one kind, in the order of their tokens in the batch.

    Returns:
        Pixels of the distinct ones, in the order of their first use; sizes of all; and, where some occur several times, for each block
        the place of its pixels among the distinct ones (`image_places`, `video_places`).
    """
    kind, suffix = ("video", "_videos") if blocks[0].kind == VIDEO else ("image", "")
    distinct: dict[str | int, VisionBlock] = {}
    for block in blocks:
        distinct.setdefault(block.digest or id(block), block)
    found: dict[str, Any] = {
        f"pixel_values{suffix}": torch.cat([block.patches_PC for block in distinct.values()]),
        f"{kind}_grid_thw": torch.tensor([block.grid for block in blocks]),
    }
    if blocks[0].image_size is not None:
        found["image_sizes"] = torch.tensor([block.image_size for block in blocks])
    if blocks[0].kind == VIDEO:
        found["second_per_grid_ts"] = torch.tensor([block.seconds_per_grid for block in blocks])
    if len(distinct) < len(blocks):
        places = {key: place for place, key in enumerate(distinct)}
        found[f"{kind}_places"] = [places[block.digest or id(block)] for block in blocks]
    return found


def first_uses(places: Sequence[int]) -> list[int]:
    """Of each distinct one the first block that shows it."""
    return [places.index(place) for place in range(max(places) + 1)]


def encoded_once(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """A batch for a Qwen-VL model whose repeated images and videos have been through the vision tower once.

    Args:
        model: the model itself, without a head or adapters around it.
        batch: as `backbone.collate` makes it. Without repetitions it is returned as it is: the model encodes its media itself.
    """
    if "image_places" not in batch and "video_places" not in batch:
        return dict(batch)
    accepted, outputs = dict(batch), {}
    for kind, suffix in (("image", ""), ("video", "_videos")):
        if (pixels := accepted.pop(f"pixel_values{suffix}", None)) is None:
            continue
        grid = batch[f"{kind}_grid_thw"]
        places = accepted.pop(f"{kind}_places", list(range(len(grid))))
        encode = getattr(model, f"get_{kind}_features")
        outputs[kind] = _repeated(encode(pixels, grid[first_uses(places)], return_dict=True), places)
    return accepted | {"mm_encoder_outputs": outputs}


def _repeated(output: Any, places: Sequence[int]) -> Any:
    """A vision tower's output with the features of each block in its place."""
    output.pooler_output = [output.pooler_output[place] for place in places]
    if getattr(output, "deepstack_features", None) is not None:
        output.deepstack_features = [[layer[place] for place in places] for layer in output.deepstack_features]
    return output
