"""Sets in the layout of MMEB (Jiang et al., ICLR 2025): a query and about a thousand candidates of its own, the first of which is right.

    <root>/<set>/<set>_test.jsonl          {"qry_text", "qry_img_path", "tgt_text": [...], "tgt_img_path": [...]}
    <root>/<set>/test-*.parquet            the same columns, as the hub keeps them
    <root>/data_instruction.json           {"<set>": {"qry_instruction", "tgt_instruction"}}; may be missing
    <root>/eval_images/<path>              or images/; else paths count from the root

Texts begin with their instruction. Where data_instruction.json is there, it is taken off both sides, and queries get theirs as an
instruction; without the file texts stay whole. The image token `<|image_1|>` is dropped. Texts are cleaned as in M-BEIR.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from umr.data.mbeir_records import normalise_text
from umr.errors import DataError
from umr.evaluation.suites.folder import Folder, inside, read_json
from umr.evaluation.suites.protocols import Galleries
from umr.evaluation.suites.task import Items, Suite, Task
from umr.items import Item

IMAGE_TOKEN = "<|image_1|>"
META_TASKS: dict[str, tuple[str, ...]] = {
    "classification": (
        *("VOC2007", "N24News", "SUN397", "ImageNet-1K", "HatefulMemes"),
        *("ObjectNet", "Country211", "Place365", "ImageNet-A", "ImageNet-R"),
    ),
    "vqa": (
        *("OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA", "Visual7W"),
        *("ScienceQA", "GQA", "TextVQA", "VizWiz"),
    ),
    "retrieval": (
        *("MSCOCO_i2t", "MSCOCO_t2i", "VisDial", "CIRR", "VisualNews_i2t", "VisualNews_t2i", "NIGHTS", "WebQA"),
        *("Wiki-SS-NQ", "FashionIQ", "OVEN", "EDIS"),
    ),
    "grounding": ("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"),
}
IN_DISTRIBUTION = (
    *(name for kind, count in (("classification", 5), ("vqa", 6), ("retrieval", 8), ("grounding", 1)) for name in META_TASKS[kind][:count]),
)
"""The 20 sets that MMEB has training data of."""
_START = re.compile(r"^[\s,;:.?]+")

Content = tuple[str, str]
"""Text and image path, either of which may be empty."""


def read(folder: Folder) -> Suite:
    """Read all sets that are there, at least one. Raises `DataError`."""
    files = {path.parent.name: path for path in sorted(folder.root.glob("*/*")) if _is_set(path)}
    if not files:
        raise DataError(
            f"{folder.root}: mmeb needs files <set>/<set>_test.jsonl or <set>/test-*.parquet, which are missing; {folder.source}"
        )
    told = folder.root / "data_instruction.json"
    instructions = read_json(told, dict) if told.is_file() else {}
    images = next((folder.root / name for name in ("eval_images", "images") if folder.has(name)), folder.root)
    tasks = tuple(_task(name, path, _instructions(instructions, name, told), images) for name, path in files.items())
    decide = (*files.values(), *([told] if told.is_file() else []))
    return Suite(folder.suite, folder.root, folder.source, decide, tasks, "accuracy", _means(tuple(files)))


def _is_set(path: Path) -> bool:
    return path.name == f"{path.parent.name}_test.jsonl" or (path.name.startswith("test-") and path.suffix == ".parquet")


def _means(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    everything = tuple(name for kind in META_TASKS.values() for name in kind)
    wanted = {
        **META_TASKS,
        "in distribution": IN_DISTRIBUTION,
        "out of distribution": tuple(name for name in everything if name not in IN_DISTRIBUTION),
        "overall": everything,
    }
    whole = {name: sets for name, sets in wanted.items() if set(sets) <= set(names)}
    return whole if "overall" in whole else {**whole, f"the {len(names)} sets here": names}


def _instructions(known: dict[str, Any], name: str, path: Path) -> tuple[str, str]:
    entry = known.get(name, {}) if known else {}
    if not isinstance(entry, dict):
        raise DataError(f"{path}: {name} must be an object with qry_instruction and tgt_instruction")
    return str(entry.get("qry_instruction") or ""), str(entry.get("tgt_instruction") or "")


def _task(name: str, path: Path, instructions: tuple[str, str], images: Path) -> Task:
    asked: list[Content] = []
    places: dict[Content, str] = {}
    galleries: dict[str, list[str]] = {}
    for number, row in enumerate(_rows(path), 1):
        where = f"{path}:{number}"
        asked.append((_clean(row.get("qry_text"), instructions[0], where), _text(row.get("qry_img_path"), where)))
        texts, pictures = _targets(row, where)
        found = [(_clean(text, instructions[1], where), _text(picture, where)) for text, picture in zip(texts, pictures, strict=True)]
        for content in (asked[-1], *found):
            if content == ("", ""):
                raise DataError(f"{where}: a query or a candidate has neither text nor image")
        galleries[f"{name} {number}"] = [places.setdefault(content, f"candidate {len(places)}") for content in found]
    if not asked:
        raise DataError(f"{path}: has no rows; fetch it again")
    contents = list(places)
    queries = Items(f"{name}-queries", tuple(galleries), lambda n: _item(asked[n], queries.ids[n], images, str(path)))
    pool = Items(f"{name}-candidates", tuple(places.values()), lambda n: _item(contents[n], pool.ids[n], images, str(path)))
    target = {qid: gallery[0] for qid, gallery in galleries.items()}
    protocol = Galleries(target, {qid: gallery[1:] for qid, gallery in galleries.items()}, {"accuracy": 1})
    return Task(name, queries, pool, protocol, _START.sub("", instructions[0]).strip() or None)


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.read_table(path).to_pylist())
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: is no whole Parquet file ({error})") from error
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: is no JSON ({error}); fetch the file again") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: must be an object, not {type(row).__name__}")
        rows.append(row)
    return rows


def _targets(row: dict[str, Any], where: str) -> tuple[list[Any], list[Any]]:
    """Texts and pictures of the candidates; a single text goes with every picture, as in some sets."""
    texts, pictures = row.get("tgt_text"), row.get("tgt_img_path")
    if isinstance(texts, str) and isinstance(pictures, list):
        texts = [texts] * len(pictures)
    if not isinstance(texts, list) or not isinstance(pictures, list) or len(texts) != len(pictures) or len(texts) < 2:
        raise DataError(f"{where}: tgt_text and tgt_img_path must be lists of one length, at least 2")
    return texts, pictures


def _text(value: Any, where: str) -> str:
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: texts and paths must be strings, not {type(value).__name__}")
    return value or ""


def _clean(value: Any, instruction: str, where: str) -> str:
    text = _text(value, where).replace(IMAGE_TOKEN, "")
    if not instruction:
        return normalise_text(text)
    return normalise_text(_START.sub("", text.replace(instruction.replace(IMAGE_TOKEN, "").strip(), "", 1).strip()))


def _item(content: Content, id: str, images: Path, where: str) -> Item:
    text, picture = content
    return Item.of(text=text, image=inside(images, picture, where) if picture else None, id=id)
