"""Pairs for the first training stages: sentences that entail each other, and images with their captions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from umr.data.jsonl import Fault, Record
from umr.data.pair_rows import Layout, open_rows
from umr.errors import DataError
from umr.items import Item


@dataclass(frozen=True)
class PairRow:
    """A query, its right answer, and known wrong answers. Every item has an id that is unique in its file."""

    query: Item
    positive: Item
    negatives: tuple[Item, ...]


class TextPairs:
    """Sentence pairs from a CSV, JSON-lines, JSON or Parquet file.

    Its columns are `sent0`, `sent1` and, if there is one, `hard_neg`; other formats than CSV may name them `query`, `positive` and
    `hard_negative`. Texts are stripped of surrounding whitespace and otherwise kept. A CSV file is held in memory: 0.1 GB for
    the 276 thousand rows of the usual NLI file. Row `i` has the ids `nli:<i>:query`, `nli:<i>:positive` and `nli:<i>:negative`; an
    empty hard negative means none.

    Args:
        path: the file, UTF-8; a CSV file has a header line.

    Raises:
        DataError: missing file or column, or an empty sentence, with file and line or row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = _CsvRows(path) if path.suffix.lower() == ".csv" else open_rows(path, TEXT_LAYOUT)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> PairRow:
        row = _in_range(row, len(self), self.path)
        query, positive, negative = self._rows.at(row)
        negatives = (Item.of(text=negative, id=f"nli:{row}:negative"),) if negative else ()
        return PairRow(Item.of(text=query, id=f"nli:{row}:query"), Item.of(text=positive, id=f"nli:{row}:positive"), negatives)

    def __iter__(self) -> Iterator[PairRow]:
        return (self[row] for row in range(len(self)))


class CaptionPairs:
    """Captions, each the query for its image, from a JSON-lines, JSON or Parquet file.

    | layout | image | caption |
    |---|---|---|
    | ours, and ShareGPT4V (a JSON list) | `image` | `text`, `txt` or `caption` |
    | CC3M-595k (`train_anno.json`, records by name) | `h5v` | first of `instruct_ans` |

    The image is a path relative to the file's folder, and is opened when its item is used. CC3M-595k's annotations hold the
    absolute paths of the machine they were written on; of those the last folder and the name are taken, `images/<name>.jpg`.
    Texts are stripped of surrounding whitespace and otherwise kept. Row `i` has the ids `caption:<i>:query` and
    `caption:<i>:positive`.

    Args:
        path: the file.

    Raises:
        DataError: missing file or malformed record, with file and line or row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = open_rows(path, CAPTION_LAYOUT)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> PairRow:
        row = _in_range(row, len(self), self.path)
        image, text = self._rows.at(row)
        query = Item.of(text=text, id=f"caption:{row}:query")
        return PairRow(query, Item.of(image=self.path.parent / image, id=f"caption:{row}:positive"), ())

    def __iter__(self) -> Iterator[PairRow]:
        return (self[row] for row in range(len(self)))


class _CsvRows:
    """Rows of a CSV file, in memory."""

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

    def at(self, row: int) -> tuple[str, ...]:
        return self._rows[row]

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


def _read_texts(record: Record) -> tuple[str, str, str]:
    names = ("sent0", "sent1", "hard_neg") if "sent0" in record else ("query", "positive", "hard_negative")
    query, positive, negative = (record.get(name) for name in names)
    if not isinstance(query, str) or not isinstance(positive, str) or not query.strip() or not positive.strip():
        raise ValueError(f"{names[0]} and {names[1]} must be non-empty strings")
    if not isinstance(negative, str | None):
        raise ValueError(f"{names[2]} must be a string or null, not {type(negative).__name__}")
    return query.strip(), positive.strip(), (negative or "").strip()


def _read_caption(record: Record) -> tuple[str, str]:
    foreign = "h5v" in record
    image = record.get("h5v" if foreign else "image")
    text = record.get("instruct_ans") if foreign else next((record[name] for name in ("text", "txt", "caption") if name in record), None)
    if foreign and isinstance(text, list):
        text = text[0] if text else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{'instruct_ans' if foreign else 'text'} must be a non-empty string")
    if not isinstance(image, str) or not image:
        raise ValueError(f"{'h5v' if foreign else 'image'} must be a non-empty string, the path of an image")
    if foreign and image.startswith("/"):
        image = str(PurePosixPath(*PurePosixPath(image).parts[-2:]))
    if image[0] in "/\\" or "\0" in image or ".." in PurePosixPath(image.replace("\\", "/")).parts:
        raise ValueError(f"image {image!r} leads out of the file's folder")
    return image, text.strip()


def _text_fault(record: Record) -> Fault | None:
    try:
        _read_texts(record)
    except ValueError as error:
        return "malformed", str(error)
    return None


def _caption_fault(record: Record) -> Fault | None:
    try:
        _read_caption(record)
    except ValueError as error:
        return "malformed", str(error)
    return None


TEXT_LAYOUT = Layout(
    ("query", "positive", "negative"), _read_texts, _text_fault, ("sent0", "sent1", "hard_neg", "query", "positive", "hard_negative")
)
CAPTION_LAYOUT = Layout(("image", "text"), _read_caption, _caption_fault, ("image", "text", "txt", "caption", "h5v", "instruct_ans"))


def _in_range(row: int, count: int, path: Path) -> int:
    if not -count <= row < count:
        raise IndexError(f"row {row} of {count} in {path}")
    return row % count
