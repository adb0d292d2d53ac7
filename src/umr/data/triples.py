"""Triples of query, right passage and wrong passages, as MS MARCO and its like give them out, in files of any size."""

from __future__ import annotations

import json
import os
import weakref
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from umr.data.jsonl_scan import REPORT_FROM_BYTES
from umr.data.text_queries import TextPool, query_index
from umr.data.text_retrieval import CORPUS, QUERIES
from umr.errors import DataError
from umr.items import Item
from umr.progress import progress

_MEGABYTE = 10**6
_REPORT_EVERY = 1 << 16


@dataclass(frozen=True)
class Triple:
    """A query, its right passages, and wrong ones, hardest first as far as the file says."""

    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Item, ...]


Texts = tuple[str, list[str], list[str]]
"""Query, right and wrong passages: texts or ids."""


class Triples:
    """The rows of a file, by number. Reads each line once to find where it starts: 8 bytes a row stay in memory.

    | file | a row |
    |---|---|
    | `.tsv` | query, right passage, wrong passages, separated by tabs; no header (MS MARCO's `triples.train.*.tsv`) |
    | `.jsonl` | `query`, `positive` and perhaps `negative`, each of the latter one text or a list; or `query`, `pos`, `neg` |

    Args:
        path: the file, UTF-8.
        ids_in: folder with `corpus.jsonl` and `queries.jsonl` (`umr.data.text_retrieval`) where the file holds ids instead of texts, as
            MS MARCO's `qidpidtriples.*.tsv` do. Without it texts are their own ids, so equal ones are known as equal.

    Raises:
        DataError: missing or empty file, or an unusable line, with file and line.
    """

    def __init__(self, path: Path, ids_in: Path | None = None) -> None:
        self.path = path
        if path.suffix not in (".tsv", ".jsonl"):
            raise DataError(f"{path}: triples are read from .tsv and .jsonl files")
        self._parse: Callable[[bytes], Texts] = _of_table if path.suffix == ".tsv" else _of_json
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        weakref.finalize(self, os.close, self._fd)
        self._ids_in = ids_in
        self._pool = None if ids_in is None else TextPool(ids_in / CORPUS, "fail")
        self._queries = None if ids_in is None else query_index(ids_in / QUERIES, "fail")
        self._offsets_N = self._scan()
        if len(self) == 0:
            raise DataError(f"{path}: holds no triples")

    def __reduce__(self) -> tuple[type[Triples], tuple[Path, Path | None]]:
        return Triples, (self.path, self._ids_in)

    def __len__(self) -> int:
        return len(self._offsets_N) - 1

    def __getitem__(self, row: int) -> Triple:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} in {self.path}")
        start, stop = self._offsets_N[row : row + 2].tolist()
        query, positives, negatives = self._parse(os.pread(self._fd, stop - start, start).split(b"\n", 1)[0])
        if self._queries is None:
            return Triple(_text(query), tuple(map(_text, positives)), tuple(map(_text, negatives)))
        asked = Item.of(text=self._queries[query]["text"].strip(), id=query)
        return Triple(asked, self._passages(positives), self._passages(negatives))

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that decide what the rows are."""
        return (self.path,) if self._queries is None or self._pool is None else (self.path, self._queries.path, self._pool.path)

    def _passages(self, ids: list[str]) -> tuple[Item, ...]:
        assert self._pool is not None
        return tuple(self._pool.item(did) for did in ids)

    def _scan(self) -> npt.NDArray[np.int64]:
        size = os.fstat(self._fd).st_size
        offsets, position = array("q"), 0
        large = size >= REPORT_FROM_BYTES
        with self.path.open("rb") as file, progress(f"reading {self.path.name}", size // _MEGABYTE if large else 0, "MB") as bar:
            reported = 0
            for number, line in enumerate(file, 1):
                if line.strip():
                    self._check(line, number)
                    offsets.append(position)
                position += len(line)
                if large and number % _REPORT_EVERY == 0:
                    bar.advance(position // _MEGABYTE - reported)
                    reported = position // _MEGABYTE
        offsets.append(position)
        return np.frombuffer(offsets, np.int64)

    def _check(self, line: bytes, number: int) -> None:
        try:
            query, positives, negatives = self._parse(line.rstrip(b"\n"))
        except ValueError as error:
            raise DataError(f"{self.path}:{number}: {error}") from error
        if self._queries is None or self._pool is None:
            return
        if query not in self._queries:
            raise DataError(f"{self.path}:{number}: query {query!r} is not in {self._queries.path}")
        if (missing := self._pool.find([*positives, *negatives]) < 0).any():
            did = [*positives, *negatives][int(missing.argmax())]
            raise DataError(f"{self.path}:{number}: passage {did!r} is not in {self._pool.path}")


def _text(text: str) -> Item:
    return Item.of(text=text, id=Item.of(text=text).digest)


def _of_table(line: bytes) -> Texts:
    cells = [cell.strip() for cell in _decoded(line).split("\t")]
    if len(cells) < 3:
        raise ValueError(f"needs query, right passage and wrong passages, separated by tabs, has {len(cells)} columns")
    if not all(cells):
        raise ValueError(f"column {cells.index('') + 1} is empty")
    return cells[0], [cells[1]], cells[2:]


def _of_json(line: bytes) -> Texts:
    try:
        record = json.loads(_decoded(line))
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON ({error.msg}, column {error.colno})") from error
    if not isinstance(record, dict):
        raise ValueError(f"must hold a JSON object, not {type(record).__name__}")
    right, wrong = ("pos", "neg") if "pos" in record else ("positive", "negative")
    query, positives, negatives = record.get("query"), _list(record, right), _list(record, wrong)
    if not isinstance(query, str) or not query.strip():
        raise ValueError(f"query must be a non-empty string, not {query!r}")
    if not positives:
        raise ValueError(f"{right} must hold a text")
    return query.strip(), positives, negatives


def _list(record: dict[str, object], name: str) -> list[str]:
    value = record.get(name)
    texts = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"{name} must be a non-empty string or a list of them")
    return [str(text).strip() for text in texts]


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not valid UTF-8 (byte {error.start + 1})") from error
