"""GeneCIS (Vaze et al., CVPR 2023): a picture and a condition, in a gallery of each query's own, four tasks.

    <root>/annotations/<task>.json       [{"reference", "target", "gallery": [...], "condition"}]
    <root>/val2017/<val_image_id, 12 digits>.jpg           of focus_object and change_object: COCO
    <root>/vg/<task>/<image_id>_<query>_<part>.jpg         of focus_attribute and change_attribute, cut out, as LamRA publishes them:
                                                           part 0 is the reference, 1 the target, 2, 3, ... the gallery
    <root>/VG_100K_all/<image_id>.jpg                      or Visual Genome's pictures, from which `instance_bbox` is cut here

A gallery is the target and the pictures in `gallery`, about 15 in all (10 for focus_attribute). The measure is how often the target is
among the first 1, 2 or 3 of it, and the mean over the four tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.errors import DataError
from umr.evaluation.suites.folder import Folder, get, number_or_text, objects, records
from umr.evaluation.suites.protocols import Galleries
from umr.evaluation.suites.task import Items, Suite, Task
from umr.items import Item
from umr.media import open_image

if TYPE_CHECKING:
    import PIL.Image

TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
CUTS = {"hit@1": 1, "hit@2": 2, "hit@3": 3}
DILATION = 0.7
"""By which share of its size a box is widened on each side before it is cut out, as the authors do."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A picture file, or a box of it: left, top, width, height."""

    path: Path
    box: tuple[float, float, float, float] | None = None

    def open(self) -> Path | PIL.Image.Image:
        """What an item is made of: the path, or what was cut out."""
        return self.path if self.box is None else cut_out(open_image(self.path), self.box)


def read(folder: Folder) -> Suite:
    """Read all four tasks. Raises `DataError`."""
    files = tuple(folder.file(f"annotations/{task}.json", f"genecis/{task}.json") for task in TASKS)
    tasks = tuple(_task(task, path, folder) for task, path in zip(TASKS, files, strict=True))
    return Suite(folder.suite, folder.root, folder.source, files, tasks, "hit@1", {"all": TASKS})


def cut_out(image: PIL.Image.Image, box: tuple[float, float, float, float]) -> PIL.Image.Image:
    """A widened box of an image on a black square, the way GeneCIS's attribute tasks show their objects."""
    import PIL.Image

    left, top = max(0.0, box[0] - DILATION * box[2]), max(0.0, box[1] - DILATION * box[3])
    right = min(float(image.width), left + (1 + DILATION) * box[2])
    bottom = min(float(image.height), top + (1 + DILATION) * box[3])
    part = image.crop((round(left), round(top), round(right), round(bottom)))
    side = max(part.size)
    square = PIL.Image.new("RGB", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


def _task(task: str, path: Path, folder: Folder) -> Task:
    find = _finder(task, folder)
    pictures: dict[str, Picture] = {}
    asked: list[tuple[Picture, str]] = []
    target: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for place, (where, record) in enumerate(records(path)):
        gallery = [get(record, "target", dict, where), *(one for _, one in objects(get(record, "gallery", list, where), where))]
        found = [find(place, part, one, where) for part, one in enumerate(gallery, 1)]
        pictures.update(found)
        target[f"query {place}"], *others[f"query {place}"] = [did for did, _ in found]
        asked.append((find(place, 0, get(record, "reference", dict, where), where)[1], get(record, "condition", str, where)))
    queries = Items(f"queries-{task}", tuple(target), lambda n: _query(queries.ids[n], *asked[n]), lambda n: [asked[n][0].path])
    dids = tuple(pictures)
    pool = Items(f"images-{task}", dids, lambda n: Item.of(image=pictures[dids[n]].open(), id=dids[n]), lambda n: [pictures[dids[n]].path])
    return Task(task, queries, pool, Galleries(target, others, CUTS))


def _query(qid: str, picture: Picture, condition: str) -> Item:
    return Item.of(image=picture.open(), text=condition, id=qid)


Find = Callable[[int, int, Record, str], tuple[str, Picture]]
"""Id and picture by number of the query, part of its gallery, the part's record, and the place for messages."""


def _finder(task: str, folder: Folder) -> Find:
    if task.endswith("_object"):
        return partial(_of_coco, folder.folder("val2017", "coco/val2017"))
    if folder.has(f"vg/{task}"):
        return partial(_cut_before, folder.folder(f"vg/{task}"))
    return partial(_of_visual_genome, folder.folder(f"vg/{task}", "VG_100K_all", "VG_100K"))


def _of_coco(images: Path, place: int, part: int, record: Record, where: str) -> tuple[str, Picture]:
    name = number_or_text(record, "val_image_id", where)
    return f"coco {name}", Picture(images / f"{_digits(name, where).zfill(12)}.jpg")


def _cut_before(images: Path, place: int, part: int, record: Record, where: str) -> tuple[str, Picture]:
    name = f"{_digits(number_or_text(record, 'image_id', where), where)}_{place}_{part}.jpg"
    return name, Picture(images / name)


def _of_visual_genome(images: Path, place: int, part: int, record: Record, where: str) -> tuple[str, Picture]:
    name = _digits(number_or_text(record, "image_id", where), where)
    box = get(record, "instance_bbox", list, where)
    if len(box) != 4 or not all(isinstance(value, int | float) for value in box) or not (box[2] > 0 and box[3] > 0):
        raise DataError(f"{where}: instance_bbox must be left, top, width and height, not {box!r:.60}")
    left, top, width, height = map(float, box)
    return f"{name} {left:g} {top:g} {width:g} {height:g}", Picture(images / f"{name}.jpg", (left, top, width, height))


def _digits(name: str, where: str) -> str:
    if not name.isdecimal():
        raise DataError(f"{where}: an image id must be a number, not {name!r}")
    return name
