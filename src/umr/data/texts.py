"""The texts of a file or a benchmark folder, for training a tokenizer."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from umr.errors import DataError

TEXT_FIELDS = ("txt", "query_txt", "text")
"""The fields of a JSON line that are taken as text: M-BEIR's candidates and queries, and plain `text`."""


def read_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a `.txt` file (one a line), of a `.jsonl` file, or of the training part of a benchmark folder.

    Raises:
        DataError: the path does not exist, is of another kind, holds no text, or a line is not a JSON object.
    """
    from umr.data.world.texts import iter_texts

    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    texts = iter_texts(path) if (path / "world.json").is_file() else (text for file in _text_files(path) for text in _file_texts(file))
    found = False
    for text in filter(None, map(str.strip, texts)):
        found = True
        yield text
    if not found:
        raise DataError(f"{path}: holds no text; give a .txt file, a .jsonl file with {', '.join(TEXT_FIELDS)}, or a benchmark folder")


def _text_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    patterns = ("instructions/query_instructions.tsv", "query/*train/*.jsonl", "cand_pool/global/*train*.jsonl")
    return sorted(file for pattern in patterns for file in path.glob(pattern))


def _file_texts(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        if file.suffix == ".txt":
            yield from lines
        elif file.suffix == ".tsv":
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                yield from (text for name, text in row.items() if name and name.startswith("prompt") and text)
        elif file.suffix == ".jsonl":
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from _json_texts(line, f"{file}:{number}")
        else:
            raise DataError(f"{file}: text is read from .txt and .jsonl files")


def _json_texts(line: str, where: str) -> Iterator[str]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object is expected, not {type(record).__name__}")
    yield from (record[name] for name in TEXT_FIELDS if isinstance(record.get(name), str))
