"""mteb's batches become items: the text, images and video of a row are one item, a row's own instruction is its query's.

Encoded images and videos of a data set are taken as they are, before mteb's loader decodes them, so that `umr.media` opens them: with its
limits, in the same way as everywhere in umr, and videos through PyAV.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import PIL.Image
from datasets import Dataset, Image, Video
from torch.utils.data import DataLoader

from umr.errors import MediaError, RenderError
from umr.items import Item, Query

WINDOW = 256
"""Rows that are turned into items, and given to a model, at a time."""


def windows(loader: DataLoader[Any], instruction: str | None) -> Iterator[list[Query]]:
    """Yield the rows of a loader in order, `WINDOW` of them at a time or a batch more; items last until the next window.

    Args:
        loader: mteb's, whose batches have lists under `"text"`, `"image"`, `"video"`, and for queries `"query"` and `"instruction"`.
        instruction: of rows that bring none; None for none.

    Raises:
        RenderError: rows hold sounds, or media in a form that umr does not read.
    """
    batches = iter(_undecoded(loader))
    while True:
        with TemporaryDirectory(prefix="umr-mteb-") as folder:
            found: list[Query] = []
            while len(found) < WINDOW and (batch := next(batches, None)) is not None:
                found += _queries(batch, instruction, Path(folder))
            if not found:
                return
            yield found


def _undecoded(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same loader over the same rows with images and videos as the files that they are."""
    data = loader.dataset
    if not isinstance(data, Dataset):
        return loader
    for name, feature in data.features.items():
        if isinstance(feature, Image | Video):
            data = data.cast_column(name, type(feature)(decode=False))
    return DataLoader(data, batch_size=loader.batch_size, collate_fn=loader.collate_fn, num_workers=loader.num_workers)


def _queries(batch: dict[str, Any], instruction: str | None, folder: Path) -> list[Query]:
    if "audio" in batch:
        raise RenderError("rows of this task hold sounds, which umr's models do not take; leave the task out")
    own = batch.get("instruction")
    # Where rows have instructions, mteb joins them to "text" and keeps the query alone under "query".
    texts = batch["query"] if own is not None and "query" in batch else batch.get("text")
    empty = [None] * len(next(iter(batch.values())))
    media = batch.get("image", empty), batch.get("video", empty)
    columns = zip(batch.get("id", empty), texts or empty, *media, own or [instruction] * len(empty), strict=True)
    return [Query(_item(id, text, image, video, folder), wording or None) for id, text, image, video, wording in columns]


def _item(id: str | None, text: str | None, image: Any, video: Any, folder: Path) -> Item:
    images = [_image(one) for one in (image if isinstance(image, list | tuple) else [image]) if one is not None]
    film = None if video is None else _video(video, folder)
    # Some sets have documents without any content; they stand as a single space, as in text-retrieval sets of ours.
    return Item.of(text=text or (None if images or film is not None else " "), images=images, video=film, id=id)


def _image(value: Any) -> Path | bytes | PIL.Image.Image:
    if isinstance(value, dict) and (value.get("bytes") or value.get("path")):
        return value.get("bytes") or Path(value["path"])
    if isinstance(value, bytes | PIL.Image.Image):
        return value
    raise MediaError(f"an image in mteb's batch is a {type(value).__name__}; files, bytes and PIL images can be read")


def _video(value: Any, folder: Path) -> Path | list[PIL.Image.Image]:
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict) and value.get("bytes"):
        path = folder / hashlib.blake2b(value["bytes"], digest_size=16).hexdigest()
        path.write_bytes(value["bytes"])
        return path
    if isinstance(value, dict) and value.get("path"):
        return Path(value["path"])
    raise MediaError(f"a video in mteb's batch is a {type(value).__name__}; files, bytes and lists of PIL images can be read")
