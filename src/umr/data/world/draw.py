"""Still pictures: from a `Picture`, which says what is to be seen, to an encoded JPEG or PNG file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from umr.data.world.random_stream import Stream
from umr.data.world.scene import Kind, Scene
from umr.data.world.sprites import shape_mask, texture_mask, word_mask

CELL = 32
GRID = 3 * CELL
JITTER = 4  # pixels, each way

PALETTE = {
    "red": (216, 32, 40),
    "orange": (246, 134, 24),
    "yellow": (246, 222, 44),
    "green": (36, 150, 52),
    "cyan": (48, 204, 214),
    "blue": (36, 66, 208),
    "purple": (150, 46, 180),
    "black": (28, 28, 30),
}

_NOISE_TILES = 16


@dataclass(frozen=True)
class Style:
    """The look by which a dataset is told from the others.

    Attributes:
        backgrounds: base colours, one is taken and varied a little.
        width, height: canvas in pixels, multiples of 32; the 3x3 grid is at the top left.
        decoration: what is drawn outside or around the grid, see `_decorate`.
        noise: standard deviation of pixel noise, in grey levels of 255.
        diameter: smallest and largest size of a thing, in pixels.
    """

    backgrounds: tuple[tuple[int, int, int], ...]
    width: int = GRID
    height: int = GRID
    decoration: str = "none"
    noise: float = 4.0
    diameter: tuple[int, int] = (21, 27)


STYLES = {
    "scenes": Style(((236, 236, 232), (222, 222, 226), (240, 234, 222))),
    "catalog": Style(((252, 252, 252),), height=GRID + CELL, decoration="label", noise=2.0),
    "facts": Style(((232, 210, 168), (226, 202, 152)), decoration="mat", diameter=(20, 24)),
    "news": Style(((206, 206, 206), (190, 194, 200)), width=GRID + CELL, decoration="column", noise=9.0),
    "twins": Style(((184, 176, 190), (172, 184, 190), (196, 188, 170)), noise=8.0),
    "field": Style(((186, 214, 150), (170, 206, 150)), decoration="grass", noise=6.0),
    "guide": Style(((206, 226, 190), (214, 230, 200)), decoration="frame", noise=3.0),
    "edits": Style(((196, 214, 240), (184, 206, 236)), decoration="frame"),
    "moves": Style(((244, 208, 214), (240, 198, 206)), decoration="lines"),
    "clips": Style(((150, 150, 150), (170, 170, 164)), decoration="film", noise=3.0),
}


@dataclass(frozen=True)
class Picture:
    """What is to be seen in a still. A `big` kind fills the middle of the grid behind the things of the scene."""

    style: str
    scene: Scene
    word: str | None = None
    big: Kind | None = None


def encode(picture: Picture, stream: Stream, suffix: str) -> bytes:
    """Draw and encode as `.jpg` (quality 90) or `.png`; every variation is taken from `stream`."""
    image = render(picture, stream)
    data = BytesIO()
    if suffix == ".png":
        image.save(data, "PNG", compress_level=1)
    else:
        image.save(data, "JPEG", quality=90)
    return data.getvalue()


def render(picture: Picture, stream: Stream) -> Image.Image:
    """Draw an RGB image; things are off their cell's middle by up to `JITTER` pixels and vary in size and shade."""
    style = STYLES[picture.style]
    image = background(picture.style, stream)
    if picture.big is not None:
        stamp(image, picture.big, GRID / 2, GRID / 2, stream.below(8) + 48, shade(stream, picture.big))
    for cell, kind in picture.scene:
        x = cell % 3 * CELL + CELL / 2 + stream.between(-JITTER, JITTER)
        y = cell // 3 * CELL + CELL / 2 + stream.between(-JITTER, JITTER)
        size = style.diameter[0] + stream.below(style.diameter[1] - style.diameter[0] + 1)
        stamp(image, kind, x, y, size, shade(stream, kind))
    if picture.word is not None:
        mask = word_mask(picture.word.upper())
        left = (style.width - mask.width) // 2 + stream.below(7) - 3
        image.paste((30, 30, 40), (left, GRID + 4 + stream.below(5)), mask)
    return grain(image, style.noise, stream)


def background(style_name: str, stream: Stream) -> Image.Image:
    """An empty canvas of the style, tinted a little and unevenly lit."""
    style = STYLES[style_name]
    base = stream.pick(style.backgrounds)
    colour = tuple(min(255, max(0, round(channel + stream.between(-7, 7)))) for channel in base)
    image = Image.new("RGB", (style.width, style.height), colour)
    light = _light(style.width, style.height, stream.below(8))
    image.paste((255, 255, 255), (0, 0), light)
    _decorate(image, style, stream)
    return image


def stamp(image: Image.Image, kind: Kind, x: float, y: float, size: int, colour: tuple[int, int, int]) -> None:
    """Put a thing with a dark rim on the image, its middle at (x, y)."""
    corner = (round(x - size / 2), round(y - size / 2))
    red, green, blue = colour
    image.paste((red * 11 // 20, green * 11 // 20, blue * 11 // 20), corner, shape_mask(kind.shape, size))
    image.paste(colour, corner, shape_mask(kind.shape, size, 1.5))
    if (mask := texture_mask(kind.shape, kind.texture, size)) is not None:
        image.paste((250, 250, 250), corner, mask)


def shade(stream: Stream, kind: Kind) -> tuple[int, int, int]:
    """The kind's colour, varied by up to 12 levels a channel."""
    red, green, blue = (min(255, max(0, round(channel + stream.between(-12, 12)))) for channel in PALETTE[kind.colour])
    return red, green, blue


def grain(image: Image.Image, sigma: float, stream: Stream) -> Image.Image:
    """Add normal pixel noise, taken from one of a few ready tiles."""
    noise = _noise(image.height, image.width, sigma, stream.below(_NOISE_TILES))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


@cache
def _noise(height: int, width: int, sigma: float, tile: int) -> npt.NDArray[np.int16]:
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((height, width, tile))))
    return np.rint(generator.normal(0.0, sigma, (height, width, 3))).astype(np.int16)


@cache
def _light(width: int, height: int, direction: int) -> Image.Image:
    """A faint ramp of opacity (0..20 of 255) that brightens one side."""
    angle = direction * np.pi / 4
    y, x = np.mgrid[0:height, 0:width]
    ramp = (x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle)
    return Image.fromarray(np.clip((ramp + 0.7) * 30, 0, 50).astype(np.uint8))


def _decorate(image: Image.Image, style: Style, stream: Stream) -> None:
    pen = ImageDraw.Draw(image)
    right, bottom = style.width - 1, style.height - 1
    if style.decoration == "label":
        pen.rectangle((0, GRID, right, bottom), fill=(226, 220, 200), outline=(120, 110, 90))
    elif style.decoration == "column":
        pen.rectangle((GRID, 0, right, bottom), fill=(70, 72, 80))
        for y in range(6 + stream.below(4), bottom - 4, 8):
            pen.line((GRID + 5, y, right - 4 - stream.below(10), y), fill=(170, 172, 178), width=2)
    elif style.decoration == "mat":
        pen.rectangle((0, 0, right, bottom), outline=(120, 76, 40), width=4)
    elif style.decoration == "frame":
        pen.rectangle((0, 0, right, bottom), outline=(255, 255, 255), width=3)
    elif style.decoration == "lines":
        for offset in (CELL, 2 * CELL):
            pen.line((offset, 0, offset, bottom), fill=(226, 176, 186))
            pen.line((0, offset, right, offset), fill=(226, 176, 186))
    elif style.decoration == "film":
        for x in range(2, right, 8):
            pen.rectangle((x, 0, x + 4, 3), fill=(40, 40, 40))
            pen.rectangle((x, bottom - 3, x + 4, bottom), fill=(40, 40, 40))
    elif style.decoration == "grass":
        for _ in range(7):
            x, y = stream.below(right - 4), stream.below(bottom - 8)
            pen.line((x, y + 7, x + 2, y), fill=(120, 168, 96))
            pen.line((x + 4, y + 7, x + 3, y + 1), fill=(120, 168, 96))
