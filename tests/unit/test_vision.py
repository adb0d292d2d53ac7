"""Patches, grids and placeholders against transformers' own processors."""

import functools
from typing import Any

import numpy as np
import pytest
import torch

from tiny import FAMILIES, checkpoint, film, picture
from umr.errors import RenderError
from umr.items import Video
from umr.media import Frames, FrameSampling
from umr.rendering.vision import IMAGE, VIDEO, VisionReader, frames_metadata, set_frame_budget


@functools.cache
def processor(family: str) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(checkpoint(family))


def reader(family: str) -> VisionReader:
    return VisionReader(processor(family))


SIZES = [(64, 64), (128, 64), (64, 128), (64, 64), (90, 70), (7, 5), (700, 500), (400, 2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_images_have_the_pixels_of_the_processor(family: str):
    images = [picture(*size, seed=number) for number, size in enumerate(SIZES)]
    blocks = reader(family).images(images)
    tokenizer = processor(family).tokenizer
    for image, block in zip(images, blocks, strict=True):
        alone = processor(family)(text=["<|vision_start|><|image_pad|><|vision_end|>"], images=[image], return_tensors="pt")
        assert block.kind == IMAGE and list(block.grid) == alone["image_grid_thw"][0].tolist()
        assert torch.equal(block.patches_PC, alone["pixel_values"]), "equal sizes are processed together; the result is the same"
        (piece,) = block.pieces
        assert list(piece) == alone["input_ids"][0].tolist()
        assert tokenizer.convert_ids_to_tokens(piece[0]) == "<|vision_start|>"
    assert reader(family).images([]) == []


def test_images_keep_their_order():
    blocks = reader("qwen3-vl").images([picture(*size) for size in [(64, 128), (64, 64), (128, 64), (64, 64)]])
    assert [block.grid for block in blocks] == [(1, 8, 4), (1, 4, 4), (1, 4, 8), (1, 4, 4)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [2, 5, 8])
@pytest.mark.parametrize("fps", [0.5, 2.0, 29.97])
def test_videos_are_what_the_processor_makes(family: str, count: int, fps: float):
    images = film(count, 96, 64)
    frames = Video(images, fps=fps).frames()
    block = reader(family).video(frames)
    text = "<|video_pad|>" if family == "qwen3-vl" else "<|vision_start|><|video_pad|><|vision_end|>"
    other = processor(family)(
        text=[text],
        videos=[[np.asarray(image) for image in images]],
        video_metadata=[{"total_num_frames": count, "fps": fps, "frames_indices": list(range(count))}],
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert block.kind == VIDEO and list(block.grid) == other["video_grid_thw"][0].tolist()
    assert torch.equal(block.patches_PC, other["pixel_values_videos"])
    ids: list[int] = []
    for piece in block.pieces:
        ids.extend(processor(family).tokenizer(piece)["input_ids"] if isinstance(piece, str) else piece)
    assert ids == other["input_ids"][0].tolist()
    if family == "qwen2.5-vl":
        assert block.seconds_per_grid == pytest.approx(float(other["second_per_grid_ts"][0]))
    assert block.seconds_per_grid == pytest.approx(2 / fps)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_video_of_one_frame_is_that_frame_twice(family: str):
    """Qwen3-VL's own processor refuses it."""
    (image,) = film(1)
    block = reader(family).video(Frames((image,), 2.0, (0,)))
    twice = reader(family).video(Frames((image, image), 2.0, (0, 0)))
    assert block.grid == twice.grid and torch.equal(block.patches_PC, twice.patches_PC) and block.pieces == twice.pieces


@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_frames_keep_the_time_of_the_original(family: str):
    """Every tenth frame at 20 a second: half a second between frames, whatever the number of frames that are left."""
    sampled = Frames(tuple(film(5)), 20.0, (0, 10, 20, 30, 40))
    block = reader(family).video(sampled)
    assert block.seconds_per_grid == pytest.approx(1.0, rel=0.25)
    metadata = frames_metadata(sampled)
    assert metadata["total_num_frames"] == 41 and metadata["duration"] == pytest.approx(2.05)
    if family == "qwen3-vl":
        assert [piece for piece in block.pieces if isinstance(piece, str)] == ["<0.2 seconds>", "<1.2 seconds>", "<2.0 seconds>"]


def test_long_lists_of_frames_are_thinned_before():
    frames = Video(film(40), fps=10.0, sampling=FrameSampling(max_frames=8)).frames()
    assert len(frames.images) == 8 and reader("qwen2-vl").video(frames).grid[0] == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_too_narrow_is_one_clear_error(family: str):
    with pytest.raises(RenderError, match="201x1 is too narrow"):
        reader(family).images([picture(64, 64), picture(201, 1)])
    with pytest.raises(RenderError, match="1x300 is too narrow"):
        reader(family).video(Frames(tuple(film(2, 1, 300)), 2.0, (0, 1)))
    assert reader(family).images([picture(200, 1)])[0].patches_PC.shape[0] > 0
    assert reader(family).video(Frames(tuple(film(2, 9, 3)), 2.0, (0, 1))).patches_PC.shape[0] > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", [32, 64, 112])
def test_the_frame_budget_bounds_every_frame(family: str, side: int):
    import copy

    changed = copy.deepcopy(processor(family))
    set_frame_budget(changed.video_processor, side * side)
    for count in (2, 4, 8):
        frames = Frames(tuple(film(count, 300, 200)), 2.0, tuple(range(count)))
        free, bounded = reader(family).video(frames), VisionReader(changed).video(frames)
        patch = changed.video_processor.patch_size
        area = bounded.grid[1] * bounded.grid[2] * patch**2
        assert area <= side * side < free.grid[1] * free.grid[2] * patch**2
        assert area > side * side / 4 or area == (2 * patch) ** 2, "and no smaller than it must be"
