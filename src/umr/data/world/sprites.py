"""Masks that pictures are put together from: shapes, textures and printed words, each drawn once and kept."""

from __future__ import annotations

from functools import cache
from math import cos, pi, sin

from PIL import Image, ImageChops, ImageDraw, ImageFont

_OVERSAMPLING = 4


@cache
def shape_mask(shape: str, size: int, inset: float = 0.0) -> Image.Image:
    """An anti-aliased `size` x `size` mask (mode L) of a shape that fills it, shrunk by `inset` pixels on every side."""
    big, edge = size * _OVERSAMPLING, inset * _OVERSAMPLING
    mask = Image.new("L", (big, big))
    pen = ImageDraw.Draw(mask)
    low, high = edge, big - 1 - edge
    if shape == "circle":
        pen.ellipse((low, low, high, high), fill=255)
    elif shape == "square":
        margin = big * 0.06
        pen.rectangle((low + margin, low + margin, high - margin, high - margin), fill=255)
    elif shape == "ring":
        hole = big * 0.27 - edge
        pen.ellipse((low, low, high, high), fill=255)
        pen.ellipse((hole, hole, big - 1 - hole, big - 1 - hole), fill=0)
    elif shape == "cross":
        arm = big * 0.33 + edge
        pen.rectangle((arm, low, big - 1 - arm, high), fill=255)
        pen.rectangle((low, arm, high, big - 1 - arm), fill=255)
    else:
        pen.polygon(_outline(shape, big, edge), fill=255)
    return mask.resize((size, size), Image.Resampling.BOX)


def _outline(shape: str, big: int, edge: float) -> list[tuple[float, float]]:
    middle = big / 2
    if shape == "triangle":
        radius, center = big * 0.58 - 1.6 * edge, big * 0.60
        return [(middle + radius * sin(2 * pi * k / 3), center - radius * cos(2 * pi * k / 3)) for k in range(3)]
    radii = (big * 0.53 - 1.5 * edge, big * 0.23 - 0.7 * edge)
    return [(middle + radii[k % 2] * sin(pi * k / 5), middle * 1.05 - radii[k % 2] * cos(pi * k / 5)) for k in range(10)]


@cache
def texture_mask(shape: str, texture: str, size: int) -> Image.Image | None:
    """Where a textured shape shows its second colour; `None` for a plain one."""
    if texture in ("", "plain"):
        return None
    step = max(6, size // 4)
    pattern = Image.new("L", (size, size))
    pen = ImageDraw.Draw(pattern)
    if texture == "striped":
        for x in range(-size, size, step):
            pen.line((x, size, x + size, 0), fill=255, width=max(2, step // 2 - 1))
    elif texture == "spotted":
        radius = max(1.6, step * 0.3)
        for row, y in enumerate(range(step // 2, size + step, step)):
            for x in range(step // 2 if row % 2 else 0, size + step, step):
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    else:
        half = max(4, size // 5)
        for row in range(0, size, half):
            for column in range(0, size, half):
                if (row + column) // half % 2:
                    pen.rectangle((column, row, column + half - 1, row + half - 1), fill=255)
    return ImageChops.multiply(pattern, shape_mask(shape, size, 1.5))


@cache
def word_mask(word: str) -> Image.Image:
    """A printed word, twice the size of Pillow's built-in bitmap font: 12 x 22 pixels a letter, no system font involved."""
    font = ImageFont.load_default_imagefont()
    width, height = int(font.getlength(word)), 11
    small = Image.new("1", (width, height))
    ImageDraw.Draw(small).text((0, 0), word, fill=1, font=font)
    return small.convert("L").resize((2 * width, 2 * height), Image.Resampling.NEAREST)
