"""Pictures with captions, searched in both directions: the tasks of Flickr30k, COCO, ShareGPT4V and Urban1K."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umr.data.mbeir_records import normalise_text
from umr.errors import DataError
from umr.evaluation.suites.folder import Folder, read_json, texts_of
from umr.evaluation.suites.protocols import Hits
from umr.evaluation.suites.task import Items, Suite, Task
from umr.items import Item

PER_IMAGE = 5
"""Captions of a picture in Flickr30k's and COCO's test sets, where caption n belongs to picture n // 5."""


def both_directions(images: Sequence[Path], texts: Sequence[str], owners: Sequence[int]) -> tuple[Task, Task]:
    """Text -> image and image -> text.

    Args:
        images: pictures.
        texts: captions, taken as they are.
        owners: the picture of each caption, a place in `images`.
    """
    pictures = Items("images", tuple(f"image {place}" for place in range(len(images))), lambda place: _image(images, pictures, place))
    captions = Items("captions", tuple(f"caption {place}" for place in range(len(texts))), lambda place: _text(texts, captions, place))
    of_image: dict[str, list[str]] = {id: [] for id in pictures.ids}
    of_text: dict[str, list[str]] = {}
    for caption, owner in zip(captions.ids, owners, strict=True):
        of_image[pictures.ids[owner]].append(caption)
        of_text[caption] = [pictures.ids[owner]]
    return (
        Task("text -> image", captions, pictures, Hits(of_text)),
        Task("image -> text", pictures, captions, Hits(of_image)),
    )


def read_five_captions(folder: Folder, texts_file: str) -> Suite:
    """Flickr30k's and COCO's test sets, as LamRA publishes them.

        <root>/images/<n>.png        n = 0, 1, ...; COCO's folder may be called coco_images
        <root>/<texts file>          list of captions, five for each picture in its order

    Captions are cleaned as in M-BEIR, which is how their authors embed them.
    """
    images, path = folder.folder("images", "coco_images"), folder.file(texts_file)
    texts = [normalise_text(text) for text in texts_of(read_json(path, list), str(path))]
    if not texts or len(texts) % PER_IMAGE:
        raise DataError(f"{path}: has {len(texts):,} captions, not {PER_IMAGE} for each picture; fetch it again")
    pictures = [images / f"{place}.png" for place in range(len(texts) // PER_IMAGE)]
    tasks = both_directions(pictures, texts, [place // PER_IMAGE for place in range(len(texts))])
    return Suite(folder.suite, folder.root, folder.source, (path,), tasks, "hit@1")


def _image(images: Sequence[Path], items: Items, place: int) -> Item:
    return Item.of(image=images[place], id=items.ids[place])


def _text(texts: Sequence[str], items: Items, place: int) -> Item:
    return Item.of(text=texts[place], id=items.ids[place])
