"""VIST (Huang et al., NAACL 2016) as retrieval: a story in pictures, of which the last is looked for.

    <root>/sis/val.story-in-sequence.json     {"annotations": [[{"story_id", "photo_flickr_id", "text", "worker_arranged_photo_order"}]]}
    <root>/images/val/<photo_flickr_id>.jpg   or .png, .gif

A query shows all sentences in order, each but the last followed by its picture. Candidates are the pictures of all stories; those that
the query itself shows are not ranked.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from umr.errors import DataError
from umr.evaluation.suites.folder import Folder, get, inside, number_or_text, objects, read_json
from umr.evaluation.suites.protocols import Hits
from umr.evaluation.suites.task import Items, Suite, Task
from umr.items import Image, Item, Part, Text

_SUFFIXES = (".jpg", ".png", ".gif")
Sentence = tuple[int, str, str]
"""Place in the story, text and picture."""


def read(folder: Folder) -> Suite:
    """Read the folder. Raises `DataError`."""
    path = folder.file("sis/val.story-in-sequence.json", "val.story-in-sequence.json")
    images = folder.folder("images/val", "images", "val_images")
    stories = _stories(path)
    here = {file.name for file in images.iterdir()}
    photos = sorted({photo for story in stories.values() for _, _, photo in story})
    files = {photo: _file(images, photo, here, str(path)) for photo in photos}
    names = tuple(stories)
    queries = Items("stories", names, lambda place: _query(names[place], stories[names[place]], files))
    pool = Items("images", tuple(photos), lambda place: Item.of(image=files[photos[place]], id=photos[place]))
    protocol = Hits(
        right={story: [sentences[-1][2]] for story, sentences in stories.items()},
        left_out={story: [photo for _, _, photo in sentences[:-1]] for story, sentences in stories.items()},
    )
    return Suite(folder.suite, folder.root, folder.source, (path,), (Task("story -> image", queries, pool, protocol),), "hit@1")


def _stories(path: Path) -> dict[str, list[Sentence]]:
    found: defaultdict[str, list[Sentence]] = defaultdict(list)
    for place, entry in enumerate(get(read_json(path, dict), "annotations", list, str(path))):
        where = f"{path}: annotation {place}"
        if not isinstance(entry, list) or len(entry) != 1:
            raise DataError(f"{where}: must be a list of one object")
        _, record = next(objects(entry, where))
        story, photo = number_or_text(record, "story_id", where), number_or_text(record, "photo_flickr_id", where)
        found[story].append((int(number_or_text(record, "worker_arranged_photo_order", where)), get(record, "text", str, where), photo))
    if not found:
        raise DataError(f"{path}: has no annotations; fetch it again")
    short = [story for story, sentences in found.items() if len(sentences) < 2]
    if short:
        raise DataError(f"{path}: story {short[0]} has one sentence; a query needs one before the last")
    return {story: sorted(sentences, key=lambda sentence: sentence[0]) for story, sentences in found.items()}


def _file(images: Path, photo: str, here: set[str], where: str) -> Path:
    return inside(images, photo + next((suffix for suffix in _SUFFIXES if photo + suffix in here), _SUFFIXES[0]), where)


def _query(story: str, sentences: list[Sentence], files: dict[str, Path]) -> Item:
    parts: list[Part] = []
    for _, text, photo in sentences[:-1]:
        parts += [Text(text), Image(files[photo])]
    return Item((*parts, Text(sentences[-1][1])), story)
