"""What readers give: pieces that can be found, what was left out, and how a file ended."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from umr.items import Image, Item, Text, Video

if TYPE_CHECKING:
    import PIL.Image

THUMBNAIL = 256
"""Longest side of a thumbnail in pixels."""
THUMBNAIL_QUALITY = 80


@dataclass(frozen=True)
class Piece:
    """One thing that can be found, decoded and ready to be embedded; the fields are those of `umr.search.rows.Row`.

    Attributes:
        id: of the row.
        source: the file it comes from.
        item: what is embedded. Images in it are decoded already.
        digest: `Item.digest` of the item as it is made from the file: of an image the hash of the encoded file.
        pixels: how many the item holds, in all its images and frames.
    """

    id: str
    source: str
    item: Item
    digest: str
    text: str = ""
    media: str = ""
    page: int | None = None
    start: float | None = None
    end: float | None = None
    thumbnail: bytes = b""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    pixels: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A part of a file that gave no piece, while others may have. `reason` says which part and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Done:
    """The end of a file; comes after all of its pieces.

    Attributes:
        source: the file.
        content: hash of its bytes; `""` where it could not be read, which will be tried again.
        reason: why it gives nothing; `""` when all is well.
        serves: the files that it tells something about, where it is a caption; it ends as they do.
    """

    source: str
    content: str
    reason: str = ""
    serves: tuple[str, ...] = ()


Event: TypeAlias = Piece | LeftOut | Done


def piece_id(source: str, place: str = "") -> str:
    """A row's id: the path, and where needed the place in the file: `reports/a.pdf#page=3`.

    A `#` or `%` in the path is written as in a URL, so that two rows never have one id.
    """
    path = source.replace("%", "%25").replace("#", "%23")
    return f"{path}#{place}" if place else path


def item_of(*parts: Image | Video | None, text: str = "") -> Item:
    """An item of the parts that are there, the text last."""
    present: list[Image | Video | Text] = [part for part in parts if part is not None]
    return Item((*present, Text(text)) if text else tuple(present))


def thumbnail(image: PIL.Image.Image) -> bytes:
    """A small WebP of an image, which is not changed."""
    small = image.copy() if max(image.size) <= THUMBNAIL else image.resize(_fit(image.size), _best(), reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, format="webp", quality=THUMBNAIL_QUALITY, method=2)
    return buffer.getvalue()


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    scale = THUMBNAIL / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _best() -> PIL.Image.Resampling:
    import PIL.Image

    return PIL.Image.Resampling.BICUBIC
