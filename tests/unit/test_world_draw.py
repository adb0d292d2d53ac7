"""Drawing: colours stay apart, shapes sit where the scene says, variation changes pixels, and equal streams equal bytes."""

import io

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from umr.data.world.clips import IN_PLACE, SIDEWAYS, UPRIGHT, Act, Clip, encode_clip
from umr.data.world.draw import CELL, GRID, PALETTE, STYLES, Picture, encode, render
from umr.data.world.random_stream import Stream
from umr.data.world.scene import COLOURS, SHAPES, TEXTURES, Kind, Thing
from umr.data.world.sprites import shape_mask, texture_mask, word_mask


def nearest_colour(pixel):
    return min(COLOURS, key=lambda name: sum((int(a) - b) ** 2 for a, b in zip(pixel, PALETTE[name], strict=True)))


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_thing_is_seen_in_its_cell_in_its_colour_and_nowhere_else(style):
    for cell in range(9):
        for i, colour in enumerate(COLOURS):
            stream = Stream(7, cell, i)
            image = render(Picture(style, (Thing(cell, Kind(colour, "square")),)), stream)
            y, x = cell // 3 * CELL + CELL // 2, cell % 3 * CELL + CELL // 2
            middle = np.asarray(image)[y - 3 : y + 3, x - 3 : x + 3].reshape(-1, 3).mean(0)
            assert nearest_colour(middle) == colour
            other = (cell + 4) % 9
            y, x = other // 3 * CELL + CELL // 2, other % 3 * CELL + CELL // 2
            empty = np.asarray(image)[y - 3 : y + 3, x - 3 : x + 3].reshape(-1, 3).mean(0)
            assert np.abs(empty - PALETTE[colour]).max() > 60


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_equal_streams_give_equal_bytes_and_other_streams_other_pixels(style, suffix):
    picture = Picture(style, (Thing(0, Kind("red", "star")),), word="mola" if style == "catalog" else None)
    first, again, other = (encode(picture, Stream(1, key), suffix) for key in (5, 5, 6))
    assert first == again
    images = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (first, other)]
    assert images[0].shape == (STYLES[style].height, STYLES[style].width, 3)
    assert np.abs(images[0] - images[1]).mean() > 1


def test_canvases_are_multiples_of_32_that_hold_the_grid():
    for style in STYLES.values():
        assert style.width % 32 == style.height % 32 == 0
        assert style.width >= GRID <= style.height


def test_shapes_differ_and_textures_show():
    masks = {shape: np.asarray(shape_mask(shape, 24)).astype(float) / 255 for shape in SHAPES}
    for a in SHAPES:
        for b in SHAPES:
            overlap = np.minimum(masks[a], masks[b]).sum() / np.maximum(masks[a], masks[b]).sum()
            assert overlap == 1 if a == b else overlap < 0.85
    for shape in SHAPES:
        assert texture_mask(shape, "plain", 24) is None
        marks = [np.asarray(texture_mask(shape, texture, 24)).astype(float) for texture in TEXTURES[1:]]
        assert all(mark.sum() > 0.1 * 255 * masks[shape].sum() for mark in marks)
        assert all(np.abs(marks[i] - marks[j]).mean() > 10 for i in range(3) for j in range(i))


def test_words_fit_their_label_and_differ():
    masks = [word_mask(word) for word in ("MOLA", "TERRA", "ZIK")]
    assert all(mask.width <= GRID - 8 and mask.height <= CELL for mask in masks)
    assert len({mask.tobytes() for mask in masks}) == 3


def decode(data):
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], container.duration


def test_clips_are_byte_stable_and_hold_six_frames_of_three_seconds():
    clip = Clip(Act(Kind("red", "square"), SIDEWAYS[0], 1), Thing(7, Kind("blue", "star")))
    data = encode_clip(clip, Stream(3))
    assert data == encode_clip(clip, Stream(3)) != encode_clip(clip, Stream(4))
    frames, duration = decode(data)
    assert [frame.shape for frame in frames] == [(GRID, GRID, 3)] * 6
    assert duration == 3_000_000


@pytest.mark.parametrize(
    ("motion", "lane", "start", "end"),
    [(SIDEWAYS[0], 0, 0, 2), (SIDEWAYS[1], 2, 8, 6), (UPRIGHT[0], 1, 1, 7), (UPRIGHT[1], 0, 6, 0), ("turns green", 4, 4, 4)],
)
def test_clips_show_the_motion(motion, lane, start, end):
    frames, _ = decode(encode_clip(Clip(Act(Kind("red", "square"), motion, lane)), Stream(2)))
    for frame, cell, colour in ((frames[0], start, "red"), (frames[-1], end, "green" if motion == "turns green" else "red")):
        y, x = cell // 3 * CELL + CELL // 2, cell % 3 * CELL + CELL // 2
        assert nearest_colour(frame[y - 3 : y + 3, x - 3 : x + 3].reshape(-1, 3).mean(0)) == colour
    assert set(Act(Kind("red", "square"), motion, lane).cells) >= {start, end}
    assert motion in (*SIDEWAYS, *UPRIGHT, *IN_PLACE)


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_a_stream_depends_on_its_key_alone(key):
    first, second = Stream(*key), Stream(*key)
    Stream(*key, 1).unit()
    assert [first.unit() for _ in range(100)] == [second.unit() for _ in range(100)]
    assert sorted(first.sample(range(9), 9)) == list(range(9))
    assert first.other((1, 2), 1) == 2
    assert 0 <= first.below(3) < 3
