"""A folder as something to index: its files in units, each read by the reader of what it contains."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from umr import media
from umr.errors import UmrError
from umr.search.readers import captions, images, pdf, texts, videos
from umr.search.readers.kinds import HEAD, kind_of
from umr.search.readers.opening import Unreadable, content_hash, open_regular, read_whole
from umr.search.readers.piece import Done, Event
from umr.search.units import Reading, Unit, in_units, tag_of
from umr.search.walk import Found, Walked, real, walk


def folder_units(root: Path, reading: Reading, *, hidden: bool = False, leave_out: Path | None = None) -> tuple[list[Unit], Walked]:
    """All files below a folder, as units in order of path.

    Args:
        root: the folder.
        reading: how files are read.
        hidden: as of `walk`, like `leave_out`.

    Raises:
        DataError: `root` is no folder that can be listed.
    """
    walked = walk(root, hidden=hidden, leave_out=leave_out)
    units = []
    for mains, beside in in_units(walked.files, reading.captions):
        told = [(file.path, file.size, file.modified_ns) for file in beside]
        tag = tag_of(reading, [(file.path, file.problem) for file in mains], told)
        units.append(Unit((*mains, *beside), tag, partial(read_unit, root, mains, beside, reading)))
    return units, walked


def read_unit(root: Path, mains: tuple[Found, ...], beside: tuple[Found, ...], reading: Reading) -> Iterator[Event]:
    """The pieces of a file, or of images with the captions beside them, and a `Done` for each file."""
    if not beside:
        yield from _read_file(root, mains[0], reading)
        return
    pictures: dict[str, tuple[images.Picture, str]] = {}
    for main in mains:
        found = _picture(root, main)
        if isinstance(found, Done):
            yield found
        elif found is not None:
            pictures[main.path] = found
        else:
            yield from _read_file(root, main, reading)
    told = images.Caption()
    for file in beside:
        if pictures:
            told, ends = _with_caption(root, file, told, tuple(pictures), reading)
            yield from ends
        else:  # it stands beside nothing that is an image
            yield from _read_file(root, file, reading)
    for path, (picture, content) in pictures.items():
        yield from images.read(path, picture, told)
        yield Done(path, content)


def _read_file(root: Path, file: Found, reading: Reading) -> Iterator[Event]:
    if file.problem:
        yield Done(file.path, "-", file.problem)
        return
    content = ""
    try:
        with open_regular(root / real(file.path)) as opened:
            kind = kind_of(opened.read(HEAD))
            content = content_hash(opened)
            if kind == "image":
                yield from images.read(file.path, images.Picture.decode(read_whole(opened, media.MAX_BYTES, "images")))
            elif kind == "pdf":
                yield from pdf.read(file.path, opened)
            elif kind == "video":
                yield from videos.read(file.path, opened, reading.clip_seconds)
            elif kind == "text":
                yield from texts.read(file.path, read_whole(opened, texts.MOST_BYTES, "texts"), reading.chunk)
            else:
                yield Done(file.path, content, kind)
                return
    except Unreadable as error:
        yield Done(file.path, "", reason_of(error))
    except UmrError as error:
        yield Done(file.path, content, reason_of(error))
    else:
        yield Done(file.path, content)


def _picture(root: Path, file: Found) -> tuple[images.Picture, str] | Done | None:
    """An image that has something beside it, with the hash of its bytes; its end where it is broken; None where it is no image."""
    content = ""
    try:
        with open_regular(root / real(file.path)) as opened:
            if kind_of(opened.read(HEAD)) != "image":
                return None
            content = content_hash(opened)
            return images.Picture.decode(read_whole(opened, media.MAX_BYTES, "images")), content
    except Unreadable as error:
        return Done(file.path, "", reason_of(error))
    except UmrError as error:
        return Done(file.path, content, reason_of(error))


def _with_caption(
    root: Path, file: Found, told: images.Caption, serves: tuple[str, ...], reading: Reading
) -> tuple[images.Caption, list[Event]]:
    """What is told about images with this file, and the file's own end; a long text stands for itself."""
    content = ""
    try:
        with open_regular(root / real(file.path)) as opened:
            content = content_hash(opened)
            data = read_whole(opened, texts.MOST_BYTES, "texts")
        if file.path.lower().endswith(".txt"):
            text = captions.caption_of(data) if len(data) <= captions.MOST_BYTES else ""
            if len(data) > captions.MOST_BYTES or len(text) > captions.LONGEST:
                return told, list(_read_file(root, file, reading))
            if not text:
                return told, [Done(file.path, content, "is a caption without text")]
            told = images.Caption(text, told.metadata)
        else:
            text, fields = captions.fields_of(data)
            told = images.Caption(told.text or text[: captions.LONGEST], {**told.metadata, **fields})
    except Unreadable as error:
        return told, [Done(file.path, "", reason_of(error))]
    except UmrError as error:
        return told, [Done(file.path, content, reason_of(error))]
    return told, [Done(file.path, content, serves=serves)]


def reason_of(error: Exception) -> str:
    """What an error says, in one line, without the name of the file, which stands beside it."""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return said.removeprefix("an image given as bytes: ")
