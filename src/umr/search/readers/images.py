"""An image file: one piece, with a caption and fields where something beside it tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from umr import media
from umr.items import Image
from umr.search.readers.piece import Piece, item_of, piece_id, thumbnail

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True)
class Picture:
    """An image that is decoded already, with its encoded bytes."""

    data: bytes
    image: PIL.Image.Image

    @classmethod
    def decode(cls, data: bytes) -> Picture:
        """Raises `MediaError` for what `umr.media` refuses."""
        return cls(data, media.open_image(data))


@dataclass(frozen=True)
class Caption:
    """What is told about an image."""

    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read(source: str, picture: Picture, caption: Caption | None = None) -> Iterator[Piece]:
    """The one piece of an image.

    Args:
        source: path of the image, also the piece's id.
        picture: the image.
        caption: its text is embedded with the image.
    """
    told = caption or Caption()
    yield Piece(
        id=piece_id(source),
        source=source,
        item=item_of(Image(picture.image), text=told.text),
        digest=item_of(Image(picture.data), text=told.text).digest,
        text=told.text,
        media=source,
        thumbnail=thumbnail(picture.image),
        metadata=told.metadata,
        pixels=picture.image.width * picture.image.height,
    )
