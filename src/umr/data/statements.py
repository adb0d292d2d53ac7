"""Statements: messages of texts and pictures that are answered by yes or no, for generative training (World's `statements/`)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from umr.data.jsonl import Fault, JsonlIndex, Record
from umr.errors import DataError
from umr.items import Image, Item, Part, Text


@dataclass(frozen=True)
class Statement:
    """A message and its answer.

    Attributes:
        message: its parts in order, the question among them.
        answer: whether it is answered by yes.
        kind: what sort of question it is; `""` when the file does not say.
        miss: how far from the truth a wrong statement is, such as `"near"` or `"easy"`; `""` when the file does not say.
        group: rows of one group say right and wrong things of one subject; `""` for a row on its own.
    """

    message: Item
    answer: bool
    kind: str = ""
    miss: str = ""
    group: str = ""


class Statements:
    """Random access to the rows of a JSON-lines file.

    A row is `{"id": ..., "parts": [{"image": path} or {"text": ...}, ...], "answer": true or false}`, with `kind`, `miss` and `group`
    where known. Rows of one group stand together.

    Args:
        path: the file.
        images: folder that image paths start from.

    Raises:
        DataError: missing file or malformed row, with file and line.
    """

    def __init__(self, path: Path, images: Path) -> None:
        self.path, self.images = path, images
        self._index = JsonlIndex(path, key="id", check=statement_fault)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> Statement:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} in {self.path}")
        record = self._index.at(row)
        parts: list[Part] = [Image(self.images / part["image"]) if "image" in part else Text(part["text"]) for part in record["parts"]]
        more = (record.get(key, "") for key in ("kind", "miss", "group"))
        return Statement(Item(tuple(parts), record["id"]), record["answer"], *more)

    def groups(self) -> list[range]:
        """Rows of each group, in the order of the file; a row without a group is one of its own."""
        starts, before = [], ""
        for row in range(len(self)):
            group = self._index.at(row).get("group", "")
            if not group or group != before:
                starts.append(row)
            before = group
        return [range(start, stop) for start, stop in pairwise([*starts, len(self)])]

    def check(self) -> None:
        """Raise `DataError` when the images of the first row are not there: then the folder is the wrong one."""
        for part in self._index.at(0)["parts"] if len(self) else ():
            if "image" in part and not (self.images / part["image"]).is_file():
                raise DataError(f"{self.path}: {self.images / part['image']} does not exist; say with `images` where image paths start")


def statement_fault(record: Record) -> Fault | None:
    """What is wrong with a row, or None."""
    what = _wrong_parts(record.get("parts"))
    if what is None and not isinstance(record.get("answer"), bool):
        what = "answer must be true or false"
    if what is None and not all(isinstance(record.get(key, ""), str) for key in ("kind", "miss", "group")):
        what = "kind, miss and group must be strings"
    return None if what is None else ("malformed", what)


def _wrong_parts(parts: Any) -> str | None:
    if not isinstance(parts, list) or not parts:
        return "parts must be a list that is not empty"
    for part in parts:
        if not isinstance(part, dict) or len(part) != 1 or not isinstance(value := next(iter(part.values())), str) or not value:
            return 'a part must be {"image": path} or {"text": text}'
        if (name := next(iter(part))) not in ("image", "text"):
            return f"a part cannot be {name!r}; it is image or text"
        if name == "image" and (value[0] in "/\\" or "\0" in value or ".." in PurePosixPath(value.replace("\\", "/")).parts):
            return f"image {value!r} leads out of the folder of images"
    return None
