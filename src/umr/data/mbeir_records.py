"""The records of M-BEIR: what a query line and a candidate line hold, and the items they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from umr.data.jsonl_scan import Fault, Record
from umr.items import Item, QueryText

TASKS: dict[int, tuple[str, str]] = {
    0: ("text", "image"),
    1: ("text", "text"),
    2: ("text", "image,text"),
    3: ("image", "text"),
    4: ("image", "image"),
    6: ("image,text", "text"),
    7: ("image,text", "image"),
    8: ("image,text", "image,text"),
    9: ("text", "video"),
    10: ("text", "text"),
}
"""Task id -> modality of the query and of what is looked for. M-BEIR has 0 to 8 without 5; 9 and 10 are ours. 10 is text retrieval
with grades of relevance (`umr.data.text_retrieval`), measured by nDCG@10 where 1 is measured by hits."""
TEXT_RETRIEVAL = 10

_MODALITIES = {"text": "text", "image": "image", "image,text": "image,text", "text,image": "image,text", "video": "video"}


@dataclass(frozen=True)
class MBeirQuery:
    """A query with everything that belongs to it.

    Attributes:
        qid: `"<dataset>:<number>"`.
        item: what to search with, without the instruction; its id is the qid.
        instructions: the wordings to choose from; empty for a benchmark without instructions.
        task_id: key of `TASKS`.
        positives: dids of the right answers.
        negatives: dids of known wrong answers.
        target_modality: modality of what is looked for.
    """

    qid: str
    item: Item
    instructions: tuple[str, ...]
    task_id: int
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    target_modality: str


def is_text_retrieval(setting: str) -> bool:
    """Whether a setting, `"<dataset>_task<k>"`, is one of text retrieval with grades."""
    return setting.endswith(f"_task{TEXT_RETRIEVAL}")


def normalise_text(text: str | None) -> str:
    """Clean a text as M-BEIR's authors do: `' "a dog" '` becomes `'A dog.'`; `None` becomes `''`.

    Drops carriage returns, trims whitespace and double quotes, makes the first character upper case, and adds a full stop
    unless the text ends in `.`, `?` or `!`. Whitespace inside the quotes is trimmed too, so that applying it twice changes
    nothing. Instruction and text are each normalised on their own, because a template may put them in different places;
    the authors' way is `normalise_after_instruction`.
    """
    text = (text or "").replace("\r", "")
    trimmed = text.strip().strip('"')
    while trimmed != text:
        text, trimmed = trimmed, trimmed.strip().strip('"')
    if not text:
        return ""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".?!" else text + "."


def normalise_after_instruction(text: str | None) -> str:
    """Clean a text as M-BEIR's authors do when it follows an instruction: `'a dog" '` becomes `'a dog.'`.

    They normalise the instruction first, then instruction + space + text as one string, once. So the text keeps its
    beginning, and only its end is trimmed (whitespace, then double quotes) and gets a full stop. Published checkpoints
    were made so; see `ModelSettings.query_text`.

    Returns:
        What follows the instruction and the space; `""` when the text is empty or white.
    """
    text = (text or "").replace("\r", "").rstrip()
    if not text:
        return ""
    text = text.rstrip('"')
    return text if text.endswith((".", "?", "!")) else text + "."


def modality_of(text: object) -> str | None:
    """The canonical name of a modality (`"text,image"` is `"image,text"`), or `None` if unknown."""
    return _MODALITIES.get(text) if isinstance(text, str) else None


def did_list(value: object) -> tuple[str, ...]:
    """Dids from a list of strings or of objects `{"did": ...}`; `None` is the empty list. Raises `ValueError`."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError
    dids = [entry.get("did") if isinstance(entry, dict) else entry for entry in value]
    if not all(isinstance(did, str) and did for did in dids):
        raise ValueError
    return tuple(map(str, dids))


def query_fault(record: Record) -> Fault | None:
    """What is wrong with a query line, or `None`. Whether its image exists is not looked at."""
    what = _query_fault(record)
    return ("malformed", what) if what else None


def candidate_fault(record: Record) -> Fault | None:
    """What is wrong with a candidate line, or `None`. Whether its image or video exists is not looked at."""
    modality = modality_of(record.get("modality"))
    if modality is None:
        return "malformed", f"modality must be text, image, image,text or video, not {record.get('modality')!r}"
    what = _content_fault(modality, record, "txt", "img_path")
    return ("malformed", what) if what else None


def query_item(record: Record, root: Path, query_text: QueryText = "separate") -> Item:
    """The item of a query line that `query_fault` has passed: only the parts that `query_modality` names."""
    modality = str(modality_of(record["query_modality"]))
    normalise = normalise_text if query_text == "separate" else normalise_after_instruction
    return _item(modality, record, normalise(record.get("query_txt")), "query_img_path", root, record["qid"])


def candidate_item(record: Record, root: Path) -> Item:
    """The item of a candidate line that `candidate_fault` has passed: only the parts that `modality` names."""
    return _item(str(modality_of(record["modality"])), record, normalise_text(record.get("txt")), "img_path", root, record["did"])


def media_path(record: Record, root: Path) -> Path | None:
    """The one image or video that a usable query or candidate line refers to, or `None`."""
    modality = modality_of(record.get("query_modality", record.get("modality"))) or ""
    if modality == "video":
        return root / str(record["video_path"])
    if modality.startswith("image"):
        return root / str(record.get("query_img_path") or record["img_path"])
    return None


def _query_fault(record: Record) -> str | None:
    modality = modality_of(record.get("query_modality"))
    if modality not in ("text", "image", "image,text"):
        return f"query_modality must be text, image or image,text, not {record.get('query_modality')!r}"
    task = record.get("task_id")
    if task is not None and (not isinstance(task, int) or task not in TASKS):
        return f"unknown task_id {task!r}"
    if task is not None and TASKS[task][0] != modality:
        return f"task_id {task} searches with {TASKS[task][0]}, but query_modality is {modality}"
    for field in ("pos_cand_list", "neg_cand_list"):
        try:
            did_list(record.get(field))
        except ValueError:
            return f"{field} must be a list of ids or of objects with a did"
    return _content_fault(modality, record, "query_txt", "query_img_path")


def _content_fault(modality: str, record: Record, text_field: str, image_field: str) -> str | None:
    text = record.get(text_field)
    if text is not None and not isinstance(text, str):
        return f"{text_field} must be a string or null, not {type(text).__name__}"
    if modality == "text":
        return None if normalise_text(text) else f"modality is text, but {text_field} is empty"
    field = "video_path" if modality == "video" else image_field
    path = record.get(field)
    if not isinstance(path, str) or not path:
        return f"modality is {modality}, but {field} is empty"
    if path[0] in "/\\" or "\0" in path or (".." in path and ".." in PurePosixPath(path.replace("\\", "/")).parts):
        return f"{field} {path!r} leads out of the benchmark's folder"
    return None


def _item(modality: str, record: Record, text: str, image_field: str, root: Path, id: str) -> Item:
    media: dict[str, Any] = {}
    if modality == "video":
        media["video"] = root / record["video_path"]
    elif modality.startswith("image"):
        media["image"] = root / record[image_field]
    return Item.of(text=text if "text" in modality else None, id=id, **media)


def missing_media(record: Record, root: Path) -> Fault | None:
    """Whether the image or video of a usable line is not there."""
    path = media_path(record, root)
    return None if path is None or path.is_file() else ("missing media", f"{path} does not exist")


def dataset_of(id: str) -> int | None:
    """The dataset id in a qid or did; `None` if it is not written that way."""
    head, colon, _ = id.partition(":")
    return int(head) if colon and head.isdecimal() else None


def own_first(qid: str, dids: Sequence[str]) -> str | None:
    """The first of `dids` from the query's own dataset, else the first of all, else `None`."""
    own = dataset_of(qid)
    return next((did for did in dids if dataset_of(did) == own), dids[0] if dids else None)
