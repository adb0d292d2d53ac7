"""CIRCO (Baldrati et al., ICCV 2023): a picture and a change of it, among the 123,403 unlabelled pictures of COCO 2017.

    <root>/annotations/{val,test}.json      [{"id", "reference_img_id", "relative_caption", "target_img_id", "gt_img_ids"}]
    <root>/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json     {"images": [{"id", "file_name"}]}
    <root>/COCO2017_unlabeled/unlabeled2017/<file_name>

LamRA's folder (`annotations/image_info_unlabeled2017.json`, `images/unlabeled2017`) is read too. The answers to the test queries are
known to CIRCO's server alone; `submission` writes the file that it takes. A query's own picture is a candidate as any other, as the
server has it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umr import files
from umr.errors import DataError, RecipeError
from umr.evaluation.suites.folder import Folder, get, inside, number_or_text, objects, read_json, records
from umr.evaluation.suites.protocols import DEPTH, AveragePrecision, Unjudged
from umr.evaluation.suites.result import SuiteResult
from umr.evaluation.suites.task import Items, Suite, Task
from umr.items import Item

SPLITS = ("val", "test")


def read(folder: Folder) -> Suite:
    """Read the splits that are there, at least one. Raises `DataError`."""
    info = folder.file("COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", "annotations/image_info_unlabeled2017.json")
    images = folder.folder("COCO2017_unlabeled/unlabeled2017", "images/unlabeled2017")
    paths: dict[str, Path] = {}
    for where, record in objects(get(read_json(info, dict), "images", list, str(info)), str(info)):
        paths[number_or_text(record, "id", where)] = inside(images, get(record, "file_name", str, where), where)
    pool = Items("images", tuple(paths), lambda place: Item.of(image=paths[pool.ids[place]], id=pool.ids[place]))
    splits = [split for split in SPLITS if folder.has(f"annotations/{split}.json")]
    annotations = [folder.file(f"annotations/{split}.json") for split in splits or SPLITS[:1]]
    tasks = tuple(_task(split, path, paths, pool) for split, path in zip(splits, annotations, strict=True))
    return Suite(folder.suite, folder.root, folder.source, (info, *annotations), tasks, "map@5")


def submission(result: SuiteResult) -> dict[str, list[int]]:
    """What the test server takes: query id -> ids of the 50 best pictures. Raises `RecipeError` where the test split was not searched."""
    found = [one for one in result.tasks if result.suite == "circo" and one.task == "test"]
    if not found:
        raise RecipeError("a submission needs the test queries of circo: annotations/test.json")
    return {qid: [int(did) for did in dids[:DEPTH]] for qid, dids in found[0].ranked.dids.items()}


def write_submission(result: SuiteResult, path: Path) -> None:
    """Write `submission` as JSON."""
    files.write_text(Path(path), json.dumps(submission(result)) + "\n")


def _task(split: str, path: Path, paths: dict[str, Path], pool: Items) -> Task:
    asked: list[tuple[str, Path, str]] = []
    right: dict[str, Sequence[str]] = {}
    target: dict[str, str] = {}
    for where, record in records(path):
        qid, reference = number_or_text(record, "id", where), number_or_text(record, "reference_img_id", where)
        answers = _answers(record, where) if "gt_img_ids" in record else []
        for did in (reference, *answers):
            if did not in paths:
                raise DataError(f"{where}: picture {did} is not in image_info_unlabeled2017.json")
        asked.append((qid, paths[reference], get(record, "relative_caption", str, where)))
        if answers:
            right[qid], target[qid] = answers, number_or_text(record, "target_img_id", where)
    queries = Items(f"queries-{split}", tuple(qid for qid, _, _ in asked), lambda place: _query(*asked[place]))
    if right and len(right) < len(asked):
        raise DataError(f"{path}: {len(asked) - len(right)} of {len(asked)} queries have no gt_img_ids; give all of them answers, or none")
    return Task(split, queries, pool, AveragePrecision(right, target) if right else Unjudged())


def _answers(record: dict[str, Any], where: str) -> list[str]:
    answers = [str(did) for did in get(record, "gt_img_ids", list, where)]
    if not answers or len(set(answers)) < len(answers):
        raise DataError(f"{where}: gt_img_ids must be a list of different pictures, at least one")
    return answers


def _query(qid: str, reference: Path, caption: str) -> Item:
    return Item.of(image=reference, text=caption, id=qid)
