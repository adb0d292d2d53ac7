"""The items that engines are compared on: drawn by World's generator, the same for everyone."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from umr.data.world.clips import SIDEWAYS, Act, Clip, encode_clip
from umr.data.world.draw import STYLES, Picture, render
from umr.data.world.random_stream import Stream
from umr.data.world.scene import random_kind, random_scene
from umr.data.world.wording import by_position, describe
from umr.files import write_bytes
from umr.items import Item, Side

VERSION = 1
"""Changes whenever the items do: figures of two versions cannot be compared."""
SIZES = ((96, 96), (40, 40), (224, 224), (640, 480), (300, 420), (400, 50))
"""Width and height of the images."""
_SEED = 20261121
_INSTRUCTION = "Find an image that matches the caption."
_LONG_INSTRUCTION = "Look at the image and read the words. " * 4 + "Identify the picture that shows it after the change."
_ODD_TEXTS = {
    "unicode": "un círculo rojo, 赤い丸, красный круг 🎈 e\u0301",
    "markup": 'a "quoted" {content} {{ part.text }} <b> & \\n {% raw %}',
    "space around": "  a red circle,\n\ttwo  blue rings \n",
}


@dataclass(frozen=True)
class Golden:
    """One thing to embed.

    Attributes:
        name: says what it is, such as `image 640x480, query, instructed`; unique.
        item: the content. Its images are encoded bytes, its videos files.
        side: of the search.
        instruction: of a query; None for none.
    """

    name: str
    item: Item
    side: Side = "candidate"
    instruction: str | None = None


def golden_items(folder: Path) -> list[Golden]:
    """Texts of several lengths, images of several sizes, both together, videos; as candidates, and some of each as queries.

    Args:
        folder: where the two videos are written; the items refer to them.
    """
    stream = Stream(_SEED)
    items = {**_texts(stream), **_pictures(stream), **_films(stream, folder)}
    rows = [Golden(name, item) for name, item in items.items()]
    asked: list[tuple[str, str | None]] = [
        ("text of 1 scene", None),
        ("text of 1 scene", _INSTRUCTION),
        ("text of 16 scenes", _INSTRUCTION),
        ("text, unicode", _LONG_INSTRUCTION),
        ("image 96x96", None),
        ("image 640x480", _INSTRUCTION),
        ("image 300x420 and text", _INSTRUCTION),
        ("image 96x96 and text", _LONG_INSTRUCTION),
        ("video", _INSTRUCTION),
    ]
    for name, instruction in asked:
        how = {None: "", _INSTRUCTION: ", instructed", _LONG_INSTRUCTION: ", instructed at length"}[instruction]
        rows.append(Golden(f"{name}, query{how}", items[name], "query", instruction))
    return rows


def _texts(stream: Stream) -> dict[str, Item]:
    found = {"text of a word": Item.of(text=random_kind(stream).shape)}
    for scenes in (1, 4, 16):
        texts = [describe(stream, random_scene(stream, 1 + stream.below(4))).text for _ in range(scenes)]
        found[f"text of {scenes} scene{'s' * (scenes > 1)}"] = Item.of(text=". ".join(texts))
    return found | {f"text, {what}": Item.of(text=text) for what, text in _ODD_TEXTS.items()}


def _pictures(stream: Stream) -> dict[str, Item]:
    found: dict[str, Item] = {}
    drawn = []
    for number, (width, height) in enumerate(SIZES):
        scene = random_scene(stream, 1 + number % 4)
        image = _png(Picture(list(STYLES)[number], scene), stream, width, height)
        drawn.append(image)
        found[f"image {width}x{height}"] = Item.of(image=image)
        if number % 2 == 0:
            found[f"image {width}x{height} and text"] = Item.of(image=image, text=by_position(stream, scene).text)
    return found | {"two images and text": Item.of(images=drawn[:2], text="the second without the first")}


def _png(picture: Picture, stream: Stream, width: int, height: int) -> bytes:
    data = BytesIO()
    render(picture, stream).resize((width, height)).save(data, "PNG")
    return data.getvalue()


def _films(stream: Stream, folder: Path) -> dict[str, Item]:
    paths = []
    for number, motion in enumerate((SIDEWAYS[0], "grows")):
        path = folder / f"golden-{number}.mp4"
        write_bytes(path, encode_clip(Clip(Act(random_kind(stream), motion, number)), stream))
        paths.append(path)
    return {"video": Item.of(video=paths[0]), "video and text": Item.of(video=paths[1], text="the thing that grows")}
