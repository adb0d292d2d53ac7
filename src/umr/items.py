"""What is searched for and what is found: an `Item` of typed parts, and a `Query`, an item with an instruction.

A part is text, an image or a video, and says so by its type: no string is ever taken for a path or an address. Media
are opened late (`Image.open`, `Video.frames`) and through `umr.media`, which enforces the size limits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from umr import media
from umr.errors import MediaError

if TYPE_CHECKING:
    import PIL.Image

Side: TypeAlias = Literal["query", "candidate"]
"""Which end of the search an item is on; only queries carry instructions."""

QueryText: TypeAlias = Literal["separate", "joined"]
"""How the text of a query that has an instruction is cleaned: on its own, or as the end of one string with the instruction."""

_MODALITY_ORDER = ("image", "video", "text")


def _digest(kind: str, data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16, person=kind.encode().ljust(16, b"\0")).hexdigest()


@dataclass(frozen=True)
class Text:
    """A piece of text, taken literally."""

    text: str

    modality = "text"

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise MediaError(f"a text part must be a str, not {type(self.text).__name__}")

    @cached_property
    def digest(self) -> str:
        """Content hash: equal exactly when the text is equal."""
        return _digest("text", self.text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Image:
    """An image from a path, encoded bytes, or a PIL image. A `str` source is refused: write `Path(...)`."""

    source: Path | bytes | PIL.Image.Image

    modality = "image"

    def __post_init__(self) -> None:
        media.check_image_source(self.source)

    def open(self) -> PIL.Image.Image:
        """Decode to an upright RGB image. Raises `MediaError` naming the file when it cannot be used."""
        return media.open_image(self.source)

    @cached_property
    def digest(self) -> str:
        """Content hash of the encoded file, or of the pixels when the source is a PIL image."""
        return _digest("image", media.image_bytes(self.source))


@dataclass(frozen=True)
class Video:
    """A video from a path, or a list of frames in order with their rate.

    Attributes:
        source: a `Path` to a file that PyAV reads, or a sequence of PIL images.
        fps: frames per second of a frame list; ignored for files, which know their own. Default 24, as transformers assumes.
        sampling: which frames of a file are kept. A frame list is kept whole, up to `sampling.max_frames`.
    """

    source: Path | Sequence[PIL.Image.Image]
    fps: float = 24.0
    sampling: media.FrameSampling = field(default_factory=lambda: media.FrameSampling())

    modality = "video"

    def __post_init__(self) -> None:
        media.check_video_source(self.source)
        if not isinstance(self.source, Path):
            object.__setattr__(self, "source", tuple(self.source))

    def frames(self) -> media.Frames:
        """Decode and sample. Raises `MediaError` naming the file when it cannot be used."""
        return media.read_frames(self.source, self.fps, self.sampling)

    @cached_property
    def digest(self) -> str:
        """Content hash of the file or of the frames, with the sampling policy, which changes what is seen."""
        return _digest("video", media.video_bytes(self.source) + repr((self.fps, self.sampling)).encode())


Part: TypeAlias = Text | Image | Video


@dataclass(frozen=True)
class Item:
    """Ordered parts with an optional id. The modality is derived, never stated.

    Example:
        >>> Item.of(text="a red circle", id="0:17").modality
        'text'
    """

    parts: tuple[Part, ...]
    id: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise MediaError(f"item {self.id or '(without id)'} is empty: give it text, an image or a video")
        for part in self.parts:
            if not isinstance(part, Text | Image | Video):
                raise MediaError(f"item {self.id or '(without id)'}: a part must be Text, Image or Video, not {type(part).__name__}")

    @classmethod
    def of(
        cls,
        text: str | None = None,
        image: Path | bytes | PIL.Image.Image | None = None,
        images: Iterable[Path | bytes | PIL.Image.Image] | None = None,
        video: Path | Sequence[PIL.Image.Image] | Video | None = None,
        id: str | None = None,
    ) -> Item:
        """Make an item from plain values: images first, then the video, then the text.

        Args:
            text: taken literally; `None` or `""` adds no part.
            image: one image; the same as `images=[image]`.
            images: several images in order.
            video: a path or a list of frames (24 per second assumed), or a `Video` to state more.
            id: `qid` or `did`.

        Raises:
            MediaError: no part was given, or a source is of the wrong type.
        """
        sources = ([] if image is None else [image]) + list(images or [])
        parts: list[Part] = [Image(source) for source in sources]
        if video is not None:
            parts.append(video if isinstance(video, Video) else Video(video))
        if text:
            parts.append(Text(text))
        return cls(tuple(parts), id)

    @cached_property
    def modality(self) -> str:
        """The kinds of parts present, each once, in the order image, video, text: `"image,text"` for an image with text."""
        present = {part.modality for part in self.parts}
        return ",".join(kind for kind in _MODALITY_ORDER if kind in present)

    @cached_property
    def digest(self) -> str:
        """Content hash over the parts in order; independent of the id."""
        return _digest("item", "".join(part.digest for part in self.parts).encode())

    @property
    def text(self) -> str:
        """All text parts joined by a space; `""` without one. For display."""
        return " ".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True)
class Query:
    """An item to search with, and the instruction that says what to find."""

    item: Item
    instruction: str | None = None
