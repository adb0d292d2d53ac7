"""Marks that people make on hits: this row answers this query, that one does not.

They are kept in `judgements/marks.jsonl` of the collection, a line for each mark, in order; the last one on a query and a row counts. A
mark is one line appended under a lock and flushed, so after a crash it is there or not; pictures of queries lie beside it under `media`.
A benchmark needs all candidates beside the judgements, so it is made when it is wanted: `umr.search.benchmark.export`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from umr import files, media
from umr.errors import DataError, StoreError
from umr.items import Image, Item, Video
from umr.search.adding import stored, suffix_of
from umr.search.durability import flush_folder, locked
from umr.search.rows import Row

FOLDER, FILE, MEDIA = "judgements", "marks.jsonl", "media"


@dataclass(frozen=True)
class Mark:
    """What somebody said about a row.

    Attributes:
        qid: of the query: a hash of its content and instruction, so that asking again is the same query.
        text: of the query; `""` without.
        image: its picture, a path below the folder of judgements; `""` without.
        instruction: what was asked for; None for none.
        id: of the row.
        modality: of the row.
        digest: of the row's content, since a mark is about what was seen.
        right: whether it answers the query; None withdraws what was said.
    """

    qid: str
    text: str
    image: str
    instruction: str | None
    id: str
    modality: str
    digest: str
    right: bool | None


class Judgements:
    """The marks of a collection.

    Args:
        folder: of the collection.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.path = self.folder / FILE

    def add(self, query: Item, instruction: str | None, row: Row, right: bool | None) -> Mark:
        """Append a mark; it is on disk when this returns.

        Raises:
            DataError: a query that benchmarks have no place for: with a video, or more than one image.
            MediaError: its image cannot be read.
            StoreError: the folder cannot be written.
        """
        if any(isinstance(part, Video) for part in query.parts):
            raise DataError("a query with a video cannot be judged: benchmarks in the M-BEIR layout have none")
        images = [part for part in query.parts if isinstance(part, Image)]
        if len(images) > 1:
            raise DataError(f"a query with {len(images)} images cannot be judged: benchmarks in the M-BEIR layout have one a query")
        try:
            image = self._keep(images[0]) if images else ""
            mark = Mark(_qid(query, instruction), query.text, image, instruction, row.id, row.modality, row.digest, right)
            self._append({**vars(mark), "at": datetime.now(UTC).isoformat(timespec="seconds")})
        except OSError as error:
            raise StoreError(f"{self.folder}: the mark cannot be written ({error.strerror})") from error
        return mark

    def marks(self) -> list[Mark]:
        """What stands: the last mark on each query and row, in the order of the first, without those that were withdrawn.

        Raises:
            StoreError: a line that is no mark. A last line without its end, which a crash may leave, was never acknowledged and is
                passed over.
        """
        last = {}
        for mark in self._read():
            last[mark.qid, mark.id] = mark
        return [mark for mark in last.values() if mark.right is not None]

    def of(self, query: Item, instruction: str | None) -> dict[str, bool]:
        """What stands for one query: right or wrong by row id."""
        qid = _qid(query, instruction)
        return {mark.id: bool(mark.right) for mark in self.marks() if mark.qid == qid}

    def _keep(self, part: Image) -> str:
        """Write a query's picture, under a name that its content decides."""
        part.open()  # a picture that cannot be read is refused now, not when a benchmark is made of it
        data = media.image_bytes(stored(part))
        name = f"{MEDIA}/{part.digest}{suffix_of(data)}"
        if not (self.folder / name).is_file():
            files.write_bytes(self.folder / name, data)
        return name

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with locked(self.folder / ".lock"):
            new = not self.path.exists()
            with self.path.open("ab+") as file:
                _cut_off(file.fileno())
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if new:
                flush_folder(self.folder)

    def _read(self) -> Iterator[Mark]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                record = json.loads(line)
                yield Mark(**{name: record[name] for name in Mark.__dataclass_fields__})
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{self.path}:{number}: is no mark ({error}); repair the line, or delete it") from error


def _qid(query: Item, instruction: str | None) -> str:
    return blake2b(f"{query.digest}\n{instruction or ''}".encode(), digest_size=12).hexdigest()


def _cut_off(handle: int) -> None:
    """Remove a last line without its end."""
    size = os.fstat(handle).st_size
    while size and os.pread(handle, 1, size - 1) != b"\n":
        tail = os.pread(handle, min(size, 65536), max(0, size - 65536))
        size = size - len(tail) + tail.rfind(b"\n") + 1
    os.ftruncate(handle, size)
