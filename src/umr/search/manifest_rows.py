"""A manifest as something to index: a JSONL or Parquet file with an item a row, whose media lie beside it.

    {"id": "shoe-17", "text": "a red shoe", "image": "images/17.jpg", "metadata": {"price": 80}}

`id` is the row's id, and must be there. The item is `text`, `image`, `video`, or one of the latter with `text`. Paths are
relative to the manifest and must not lead out of its folder. `metadata` holds fields; so does every other key.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from umr import media
from umr.errors import DataError, UmrError
from umr.search.folder import reason_of
from umr.search.metadata import encode
from umr.search.readers import images, videos
from umr.search.readers.captions import flat
from umr.search.readers.images import Picture
from umr.search.readers.opening import Unreadable, content_hash, open_regular, read_whole
from umr.search.readers.piece import Done, Event, Piece, item_of
from umr.search.units import Unit, tag_of
from umr.search.walk import Found, shown

_MEDIA = ("image", "video")


def is_manifest(path: Path) -> bool:
    """Whether a path is that of a manifest, by its name, rather than of a folder."""
    return path.suffix.lower() in (".jsonl", ".ndjson", ".parquet") and not path.is_dir()


def manifest_units(manifest: Path) -> list[Unit]:
    """The rows of a manifest, in its order, as units of one "file" each, whose path is the row's id.

    A row that makes no sense is a unit that gives nothing but its reason, under the name `<manifest>:<line>`.

    Raises:
        DataError: the manifest itself cannot be read.
    """
    root = manifest.absolute().parent.resolve()
    seen: dict[str, int] = {}
    return [_unit(root, manifest.name, number, record, seen) for number, record in _records(manifest)]


def _records(manifest: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line numbers from 1, for Parquet row numbers, and what stands there, or what is wrong with it."""
    try:
        if manifest.suffix.lower() == ".parquet":
            yield from _parquet(manifest)
            return
        with manifest.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _parsed(line)
    except OSError as error:
        raise DataError(f"{manifest}: cannot be read ({error.strerror or error})") from error


def _parsed(line: bytes) -> dict[str, Any] | str:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return f"is no JSON ({error})"
    return record if isinstance(record, dict) else "is not a JSON object"


def _parquet(manifest: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(manifest) as file:
            for batch in file.iter_batches(1024):
                for record in batch.to_pylist():
                    number += 1
                    yield number, {key: value for key, value in record.items() if value is not None}
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{manifest}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error


def _unit(root: Path, manifest: str, number: int, record: dict[str, Any] | str, seen: dict[str, int]) -> Unit:
    name = f"{manifest}:{number}"
    try:
        if isinstance(record, str):
            raise DataError(record)
        fields = _fields(record)
        id = fields["id"]
        if id in seen:
            raise DataError(f"has the id {id!r} of row {seen[id]}")
        path = _inside(root, fields["image"] or fields["video"])
    except DataError as error:
        found = Found(name, 0, 0, reason_of(error))
        return Unit((found,), tag_of("manifest", repr(record)), partial(_nothing, found))
    seen[id] = number
    about = path.stat() if path is not None and path.exists() else None
    file = Found(id, about.st_size if about else 0, about.st_mtime_ns if about else 0)
    told = json.dumps(fields, sort_keys=True, default=str)
    return Unit((file,), tag_of("manifest", told), partial(_read, root, fields, path))


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """`id`, `text`, `image`, `video` and `metadata` of a row, checked."""
    fields: dict[str, Any] = {"id": record.get("id")}
    if isinstance(fields["id"], int) and not isinstance(fields["id"], bool):
        fields["id"] = str(fields["id"])
    if not isinstance(fields["id"], str) or not fields["id"]:
        raise DataError("has no id; every row needs a field id with a text")
    for kind in ("text", *_MEDIA):
        fields[kind] = record.get(kind) or ""
        if not isinstance(fields[kind], str):
            what = "a path relative to the manifest" if kind in _MEDIA else "a text"
            raise DataError(f"has a field {kind} that is {type(fields[kind]).__name__}, not {what}")
    if not any(fields[kind] for kind in ("text", *_MEDIA)):
        raise DataError("holds nothing to index; give it text, image or video")
    if fields["image"] and fields["video"]:
        raise DataError("has both an image and a video; make two rows of it")
    metadata = record.get("metadata") or {}
    if isinstance(metadata, str) and metadata.lstrip().startswith("{"):  # Parquet files often carry JSON in a text column
        try:
            metadata = json.loads(metadata)
        except (ValueError, RecursionError) as error:
            raise DataError(f"has metadata that is no JSON ({error})") from error
    if not isinstance(metadata, Mapping):
        raise DataError(f"has metadata that is {type(metadata).__name__}, not an object with fields")
    others = {key: value for key, value in record.items() if key not in ("id", "text", *_MEDIA, "metadata")}
    fields["metadata"] = flat({**others, **metadata})
    encode({**fields["metadata"], "id": fields["id"], "text": fields["text"]}, "the row")  # refuses what cannot be stored
    return fields


def _inside(root: Path, path: str) -> Path | None:
    """A path of the manifest, resolved; it may not exist, but must not lie elsewhere. None for `""`."""
    if not path:
        return None
    try:
        found = (root / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"names {path!r}, which is no path ({error})") from error
    if not found.is_relative_to(root):
        raise DataError(f"names {path!r}, which lies outside the manifest's folder; media must be inside")
    return found


def _nothing(found: Found) -> Iterator[Event]:
    yield Done(found.path, "-", found.problem)


def _read(root: Path, fields: Mapping[str, Any], path: Path | None) -> Iterator[Event]:
    id, text, content = fields["id"], fields["text"], "-"
    try:
        if path is None:
            item = item_of(text=text)
            yield Piece(id, id, item, item.digest, text, metadata=fields["metadata"])
        else:
            with open_regular(path) as file:
                content = content_hash(file)
                events: Iterator[Event]
                if fields["image"]:
                    picture = Picture.decode(read_whole(file, media.MAX_BYTES, "images"))
                    events = images.read(id, picture, images.Caption(text))
                else:
                    events = videos.read(id, file, math.inf, text)
                place = shown(os.fsencode(path.relative_to(root)))
                for event in events:
                    yield replace(event, id=id, media=place, metadata=fields["metadata"]) if isinstance(event, Piece) else event
    except Unreadable as error:
        yield Done(id, "", reason_of(error))
    except UmrError as error:
        yield Done(id, content, reason_of(error))
    else:
        yield Done(id, content)
