"""Which files are read together: an image with the caption beside it; every other file by itself."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from umr.search.readers import texts, videos
from umr.search.readers.piece import Event
from umr.search.rows import SourceFile
from umr.search.walk import Found

READER_VERSION = 2
"""Raise it when a reader gives other pieces for the same file; everything is then read again, and embedded where it differs."""
IMAGE_NAMES = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".heic", ".heif"))
"""Endings of names beside which a file of the same stem may be a caption."""
CAPTION_NAMES = frozenset((".txt", ".json"))


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        captions: whether `x.txt` and `x.json` beside an image `x.jpg` tell about it.
        chunk: characters of a text's chunk at most.
        clip_seconds: length of a video's clips.
    """

    captions: bool = True
    chunk: int = texts.CHUNK
    clip_seconds: float = videos.CLIP


@dataclass(frozen=True)
class Unit:
    """What is read in one go, and is read again when any of its files changes.

    Attributes:
        files: what it consists of.
        tag: hash of everything that decides how it is read and can be known without reading it.
        read: gives pieces, and a `Done` for each of `files`.
    """

    files: tuple[Found, ...]
    tag: str
    read: Callable[[], Iterator[Event]]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)

    def unchanged(self, known: Mapping[str, SourceFile]) -> bool:
        """Whether every file is on record as it is now, read in the way it would be read now."""
        return all(_same(known.get(file.path), file, self.tag) for file in self.files)

    def record_digest(self, content: str) -> str:
        """What goes into `SourceFile.digest`: `tag-content`."""
        return f"{self.tag}-{content}"


def _same(record: SourceFile | None, file: Found, tag: str) -> bool:
    if record is None or (record.size, record.modified_ns) != (file.size, file.modified_ns):
        return False
    was, _, content = record.digest.partition("-")
    return was == tag and bool(content)  # without a content it could not be opened: perhaps it can be now


def tag_of(*what: object) -> str:
    """A hash of the reader's version, of which optional readers there are, and of `what`."""
    return hashlib.blake2b(repr((READER_VERSION, _reads_heif(), *what)).encode(), digest_size=8).hexdigest()


@functools.cache
def _reads_heif() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


def in_units(files: Sequence[Found], captions: bool) -> list[tuple[tuple[Found, ...], tuple[Found, ...]]]:
    """Group files, in order of each group's first file.

    Args:
        files: ordered by path.
        captions: whether captions go with their images.

    Returns:
        (images or one other file, captions beside them). All images of one stem share their captions.
    """
    groups: dict[str, tuple[list[Found], list[Found]]] = {}
    if captions:
        for file in files:
            path = PurePosixPath(file.path)
            kind = path.suffix.lower()
            if not file.problem and kind in IMAGE_NAMES | CAPTION_NAMES:
                groups.setdefault(str(path.with_suffix("")), ([], []))[kind in CAPTION_NAMES].append(file)
        groups = {stem: group for stem, group in groups.items() if group[0] and group[1]}
    found: list[tuple[tuple[Found, ...], tuple[Found, ...]]] = []
    begun: set[str] = set()
    for file in files:
        stem = str(PurePosixPath(file.path).with_suffix(""))
        group = groups.get(stem)
        if group is None or (file not in group[0] and file not in group[1]):
            found.append(((file,), ()))
        elif stem not in begun:
            begun.add(stem)
            found.append((tuple(group[0]), tuple(group[1])))
    return found
