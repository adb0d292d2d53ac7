"""Items that come from no file become rows; their pictures and videos are kept in the collection's own folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from umr import files, media
from umr.errors import DataError, MediaError
from umr.frames import FrameSampling
from umr.items import Image, Item, Video
from umr.search.metadata import encode
from umr.search.places import OWN, Places
from umr.search.rows import Row

MEDIA = "media"
"""Folder below the collection's own."""


@dataclass(frozen=True)
class Prepared:
    """An item that is ready to be embedded.

    Attributes:
        item: with one medium at most, then its text: what `reopen` will make of the row.
        row: without a vector.
        kept: what is to be written where `row.media` says; None where nothing is.
    """

    item: Item
    row: Row
    kept: bytes | Path | None = None


def prepare(item: Item, metadata: Mapping[str, Any], places: Places) -> Prepared:
    """Open an item's medium, make its thumbnail, and decide where the medium is kept.

    A file below the root stays where it is; other files are copied, and images from memory are written as they came (PIL images as PNG).

    Raises:
        DataError: more than one image or video, a video of frames or with a sampling of its own, or metadata that cannot be kept.
        MediaError: a medium that cannot be read.
    """
    id = item.id or item.digest
    encode(metadata, id)
    mediums = [part for part in item.parts if isinstance(part, Image | Video)]
    if len(mediums) > 1:
        raise DataError(f"item {id}: holds {len(mediums)} images or videos, and a row shows one; add them one by one")
    if not mediums:
        item = Item.of(text=item.text, id=id)
        return Prepared(item, Row(id, "", "text", item.digest, None, item.text, metadata=dict(metadata)))
    (medium,) = mediums
    kept: bytes | Path
    if isinstance(medium, Video):
        kept, picture = _video(medium, id), medium.frames().images[0]
        again = Item.of(video=medium, text=item.text, id=id)
    else:
        kept, picture = stored(medium), medium.open()
        again = Item.of(image=kept, text=item.text, id=id)
    named = places.below_root(kept) if isinstance(kept, Path) else None
    where = named if named is not None else own_name(id, medium.digest, kept)
    row = Row(id, "", again.modality, again.digest, None, item.text, where, thumbnail=_thumbnail(picture), metadata=dict(metadata))
    return Prepared(again, row, None if named is not None else kept)


def keep(prepared: Prepared, places: Places) -> None:
    """Write an item's medium to its place: whole or not at all, flushed to disk. A file that is there already holds the same bytes."""
    if prepared.kept is None:
        return
    path = places.folder / prepared.row.media.lstrip("/")
    if path.is_file():
        return
    if isinstance(prepared.kept, bytes):
        files.write_bytes(path, prepared.kept)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file, prepared.kept.open("rb") as source:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # as umr.files does
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise MediaError(f"{prepared.kept}: cannot be copied into the collection ({error.strerror})") from error
        raise


def own_name(id: str, digest: str, kept: bytes | Path) -> str:
    """Where a medium is kept: a name of its own for each row and content, so that no row's medium is another's."""
    row = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return f"{OWN}{MEDIA}/{row[:2]}/{row}-{digest[:12]}{_suffix(kept)}"


def suffix_of(data: bytes) -> str:
    """The ending of a name for an encoded image, by its content."""
    import PIL.Image

    if media.looks_like_heif(data[:12]):
        return ".heic"
    try:
        with PIL.Image.open(BytesIO(data), formats=media.IMAGE_FORMATS) as image:
            return f".{str(image.format).lower()}"
    except (OSError, SyntaxError, ValueError):  # `Image.open` says what is wrong with it
        return ""


def _suffix(kept: bytes | Path) -> str:
    if isinstance(kept, bytes):
        return suffix_of(kept)
    return kept.suffix.lower() if kept.suffix.isascii() and len(kept.suffix) <= 6 else ""


def stored(part: Image) -> bytes | Path:
    """What an image is kept as: its file, its bytes, or a PNG of a PIL image."""
    if isinstance(part.source, bytes | Path):
        return part.source
    buffer = BytesIO()
    part.open().save(buffer, format="png")
    return buffer.getvalue()


def _video(part: Video, id: str) -> Path:
    if not isinstance(part.source, Path):
        raise DataError(f"item {id}: a video of frames cannot be kept; write it to a file and add that")
    if part.sampling != FrameSampling():
        raise DataError(f"item {id}: frames are sampled in one way in a collection; leave the sampling out")
    return part.source


def _thumbnail(picture: Any) -> bytes:
    from umr.search.readers.piece import thumbnail

    return thumbnail(picture)
