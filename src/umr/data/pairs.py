"""Pairs for the first training stages: sentences that entail each other, and images with their captions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from umr.data.jsonl import Fault, JsonlIndex, Record
from umr.errors import DataError
from umr.items import Item


@dataclass(frozen=True)
class PairRow:
    """A query, its right answer, and known wrong answers. Every item has an id that is unique in its file."""

    query: Item
    positive: Item
    negatives: tuple[Item, ...]


class TextPairs:
    """Sentence pairs from a CSV file with the columns `sent0`, `sent1` and, if there is one, `hard_neg`.

    Texts are stripped of surrounding whitespace and otherwise kept. Held in memory: 0.1 GB for the 276 thousand rows of the
    usual NLI file. Row `i` has the ids `nli:<i>:query`, `nli:<i>:positive` and `nli:<i>:negative`; an empty `hard_neg`
    means no negative.

    Args:
        path: the file, UTF-8, with a header line.

    Raises:
        DataError: missing file or column, or an empty sentence, with file and line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[tuple[str, str, str]] = []
        try:
            with path.open(encoding="utf-8", newline="") as file:
                self._read(csv.DictReader(file, strict=True))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not valid UTF-8 ({error.reason})") from error

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> PairRow:
        row = _in_range(row, len(self), self.path)
        query, positive, negative = self._rows[row]
        negatives = (Item.of(text=negative, id=f"nli:{row}:negative"),) if negative else ()
        return PairRow(Item.of(text=query, id=f"nli:{row}:query"), Item.of(text=positive, id=f"nli:{row}:positive"), negatives)

    def __iter__(self) -> Iterator[PairRow]:
        return (self[row] for row in range(len(self)))

    def _read(self, reader: csv.DictReader[str]) -> None:
        try:
            missing = {"sent0", "sent1"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{self.path}:1: has no column {' and no column '.join(sorted(missing))}")
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(f"{self.path}:{reader.line_num}: needs {len(reader.fieldnames or ())} columns")
                query, positive, negative = ((row.get(name) or "").strip() for name in ("sent0", "sent1", "hard_neg"))
                if not query or not positive:
                    raise DataError(f"{self.path}:{reader.line_num}: sent0 and sent1 must not be empty")
                self._rows.append((query, positive, negative))
        except csv.Error as error:
            raise DataError(f"{self.path}:{reader.reader.line_num}: is not valid CSV ({error})") from error


class CaptionPairs:
    """Captions, each the query for its image, from a JSON-lines file with `image` and `text` on every line.

    `image` is a path relative to the file's folder, and the image is opened when its item is used. Texts are stripped of
    surrounding whitespace and otherwise kept. Row `i` has the ids `caption:<i>:query` and `caption:<i>:positive`.

    Args:
        path: the file.

    Raises:
        DataError: missing file or malformed line, with file and line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index = JsonlIndex(path, key=None, check=_caption_fault)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> PairRow:
        row = _in_range(row, len(self), self.path)
        record = self._index.at(row)
        query = Item.of(text=record["text"].strip(), id=f"caption:{row}:query")
        return PairRow(query, Item.of(image=self.path.parent / record["image"], id=f"caption:{row}:positive"), ())

    def __iter__(self) -> Iterator[PairRow]:
        return (self[row] for row in range(len(self)))


def _caption_fault(record: Record) -> Fault | None:
    image, text = record.get("image"), record.get("text")
    if not isinstance(text, str) or not text.strip():
        return "malformed", "text must be a non-empty string"
    if not isinstance(image, str) or not image:
        return "malformed", "image must be a non-empty string"
    if image[0] in "/\\" or "\0" in image or ".." in PurePosixPath(image.replace("\\", "/")).parts:
        return "malformed", f"image {image!r} leads out of the file's folder"
    return None


def _in_range(row: int, count: int, path: Path) -> int:
    if not -count <= row < count:
        raise IndexError(f"row {row} of {count} in {path}")
    return row % count
