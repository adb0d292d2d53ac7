"""SugarCrepe (Hsieh et al., NeurIPS 2023): captions of COCO with one thing changed, in seven ways.

    <root>/data/<kind>.json        {"0": {"filename", "caption", "negative_caption"}, ...}
    <root>/images/val2017/<filename>

The mean is the plain one over the seven kinds.
"""

from __future__ import annotations

from pathlib import Path

from umr.evaluation.suites.folder import Folder, get, inside, objects, read_json
from umr.evaluation.suites.pairs import pair_accuracy
from umr.evaluation.suites.task import Suite, Task

KINDS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


def read(folder: Folder) -> Suite:
    """Read all seven kinds. Raises `DataError`."""
    files = tuple(folder.file(f"data/{kind}.json", f"{kind}.json") for kind in KINDS)
    images = folder.folder("images/val2017", "val2017")
    tasks = tuple(_task(kind, path, images) for kind, path in zip(KINDS, files, strict=True))
    return Suite(folder.suite, folder.root, folder.source, files, tasks, "accuracy", {"all": KINDS})


def _task(kind: str, path: Path, images: Path) -> Task:
    pairs = []
    for where, record in objects(list(read_json(path, dict).values()), str(path)):
        picture = inside(images, get(record, "filename", str, where), where)
        pairs.append((picture, get(record, "caption", str, where), get(record, "negative_caption", str, where)))
    return pair_accuracy(kind, f"-{kind}", pairs)
