"""Multi-round FashionIQ (Yuan and Lam, SIGIR 2021): garments shown one after the other, each with what should change.

<root>/data/all.val.json                  [{"target": [_, name], "reference": [[_, [texts], name], ...]}]
<root>/image_splits/split.all.val.json    [name, ...]: the candidates
<root>/images/<name>.jpg                  the pictures of FashionIQ; M-BEIR calls the folder fashioniq_images
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umr.errors import DataError
from umr.evaluation.suites.folder import Folder, get, inside, read_json, records, texts_of
from umr.evaluation.suites.protocols import Hits
from umr.evaluation.suites.task import Items, Suite, Task
from umr.items import Image, Item, Part, Text

CUTS = (5, 8, 10)
Round = tuple[str, str]
"""Changes in words, and the garment they are about."""


def read(folder: Folder) -> Suite:
    """Read the folder. Raises `DataError`."""
    path, split = folder.file("data/all.val.json"), folder.file("image_splits/split.all.val.json")
    images = folder.folder("images", "fashioniq_images", "mbeir_images/fashioniq_images")
    names = tuple(dict.fromkeys(texts_of(read_json(split, list), str(split))))
    known = set(names)
    asked: list[list[Round]] = []
    right: dict[str, list[str]] = {}
    for place, (where, record) in enumerate(records(path)):
        asked.append([_round(one, where) for one in get(record, "reference", list, where)])
        target = get(record, "target", list, where)
        if len(target) < 2 or target[1] not in known or not asked[-1]:
            raise DataError(f"{where}: needs a reference, and as second entry of target a name that is in {split.name}")
        right[f"query {place}"] = [target[1]]
    paths = [inside(images, f"{name}.jpg", str(split)) for name in names]
    queries = Items("rounds", tuple(right), lambda place: _query(queries.ids[place], asked[place], images, str(path)))
    pool = Items("images", names, lambda place: Item.of(image=paths[place], id=names[place]))
    task = Task("rounds -> image", queries, pool, Hits(right, CUTS))
    return Suite(folder.suite, folder.root, folder.source, (path, split), (task,), "hit@5")


def _round(value: Any, where: str) -> Round:
    if not isinstance(value, list) or len(value) < 3 or not isinstance(value[1], list) or not isinstance(value[2], str):
        raise DataError(f"{where}: a reference must be a list of something, a list of texts, and a name")
    return " and ".join(text for text in texts_of(value[1], where) if text), value[2]


def _query(qid: str, rounds: list[Round], images: Path, where: str) -> Item:
    parts: list[Part] = []
    for text, name in rounds:
        parts.append(Image(inside(images, f"{name}.jpg", where)))
        if text:
            parts.append(Text(text))
    return Item(tuple(parts), qid)
