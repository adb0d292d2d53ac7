"""A folder or a manifest becomes rows of a table; what is there already and has not changed is left alone.

Files are committed in blocks, whose bounds follow from the listing alone. A run that is killed loses the block it was at; the
next one does that block again, whole, and ends with the same rows as a run that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from umr.errors import DataError
from umr.progress import progress
from umr.protocols import Encoder
from umr.search.ahead import reading_ahead
from umr.search.block import Block
from umr.search.folder import folder_units
from umr.search.known import KnownVectors
from umr.search.rows import SourceFile
from umr.search.table import Table
from umr.search.units import Reading, Unit

DEFAULT = Reading()
BLOCK_FILES = 256
BLOCK_BYTES = 256 * 2**20
"""A block ends before it has more files than this, or more bytes; a larger file is one of its own."""


@dataclass(frozen=True)
class Counts:
    """What an indexing run found and did.

    Attributes:
        files: that there are now; `indexed + rejected`.
        indexed: files, whether in this run or before.
        rejected: files that give nothing, each with its reason in the table.
        rows: that these files have.
        unchanged: files that were not read, since size, time and settings are as they were.
        embedded: pieces that went through the model in this run.
        reused: pieces that were read in this run and whose vector was there already.
        forgotten: files of earlier runs that are gone.
    """

    files: int
    indexed: int
    rejected: int
    rows: int
    unchanged: int
    embedded: int
    reused: int
    forgotten: int


def index_folder(
    folder: Path,
    table: Table,
    encoder: Encoder,
    *,
    reading: Reading = DEFAULT,
    hidden: bool = False,
    leave_out: Path | None = None,
    workers: int | None = None,
) -> Counts:
    """Bring a table up to date with a folder: new and changed files are read, those that are gone are forgotten.

    Args:
        folder: what is indexed; every file in it ends as indexed or as rejected with a reason.
        table: where rows and records go. Files in it that are not in `folder` are taken for deleted.
        encoder: the model that made the table's vectors.
        reading: how files are read; a change of it reads everything again.
        hidden: whether to read files whose name, or a folder's, begins with a dot.
        leave_out: a folder in it that is passed over, such as the collection's own.
        workers: threads that read. Default: by cores.

    Raises:
        DataError: there is no such folder, or it is empty while the table is not, as when a disk is not mounted.
    """
    units, walked = folder_units(folder, reading, hidden=hidden, leave_out=leave_out)

    def unseen(path: str) -> bool:
        return any(path.startswith(f"{closed}/") for closed in walked.closed)

    return index_units(units, table, encoder, str(folder), unseen=unseen, workers=workers)


def index_units(
    units: Sequence[Unit],
    table: Table,
    encoder: Encoder,
    name: str,
    *,
    unseen: Callable[[str], bool] = lambda path: False,
    workers: int | None = None,
) -> Counts:
    """`index_folder` for units from anywhere.

    Args:
        units: everything there is, in a fixed order.
        table: as there, like `encoder` and `workers`.
        encoder: the model.
        name: what to call the whole in errors.
        unseen: whether a recorded file, by its path, may be there though it is not among `units`.
        workers: threads that read.
    """
    records = {record.path: record for record in table.files()}
    present = {file.path for unit in units for file in unit.files}
    if records and not present:
        raise DataError(f"{name}: is empty, while {len(records)} of its files are indexed; is a disk not mounted? Nothing was changed")
    blocks = [[unit for unit in block if not unit.unchanged(records)] for block in _blocks(units)]
    todo = [unit for block in blocks for unit in block]
    known = KnownVectors(table)
    embedded = reused = 0
    with progress("indexing", sum(len(unit.files) for unit in todo), "files") as bar, reading_ahead(todo, workers) as streams:
        for units_here in filter(None, blocks):
            block = Block(encoder, known)
            for unit in units_here:
                for event in next(streams):
                    block.take(unit, event)
                bar.advance(len(unit.files))
            rows, files = block.finish()
            table.put(rows, files)
            known.add(rows)
            records |= {file.path: file for file in files}
            embedded, reused = embedded + block.embedded, reused + block.reused
    gone = sorted(path for path in records if path not in present and not unseen(path))
    if gone:  # last, so that a file under a new name has found its vectors
        for start in range(0, len(gone), BLOCK_FILES):
            table.forget(gone[start : start + BLOCK_FILES])
    unchanged = len(present) - sum(len(unit.files) for unit in todo)
    return _counts([record for path, record in records.items() if path in present], unchanged, embedded, reused, len(gone))


def _counts(records: Sequence[SourceFile], unchanged: int, embedded: int, reused: int, forgotten: int) -> Counts:
    indexed = sum(record.status == "indexed" for record in records)
    rows = sum(record.rows for record in records)
    return Counts(len(records), indexed, len(records) - indexed, rows, unchanged, embedded, reused, forgotten)


def _blocks(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    block: list[Unit] = []
    files = size = 0
    for unit in units:
        if block and (files + len(unit.files) > BLOCK_FILES or size + unit.size > BLOCK_BYTES):
            yield block
            block, files, size = [], 0, 0
        block.append(unit)
        files, size = files + len(unit.files), size + unit.size
    if block:
        yield block
