"""The files of a score table: a manifest, shards of rows, and beside each shard a short index of its lists.

    manifest.json           format, what was scored, counts, and for every shard its lists, rows, file sizes and hashes
    00000.parquet           a row for each candidate of each list: qid, did, setting, pool, rank, cosine, yes, retriever, teacher, revision
    00000.lists.parquet     a row for each list of the shard: the same keys, `start` and `length` in the shard, `positives`
    00001.parquet, ...

A list never crosses a shard. A shard's files are renamed into place before the manifest names them, so a process killed at
any moment leaves a table that opens with every shard but the one being written.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from umr import files
from umr.errors import StoreError
from umr.store.shard_folder import NAME, blaming, check_sizes, digest, files_of, read_manifest, write_manifest

FORMAT = 1
AGAIN = "delete the folder and score again"
SHARDS_IN_MEMORY = 64
"""Shards that a reader keeps decoded; one takes about half a megabyte."""

_NAMES = pa.dictionary(pa.int32(), pa.string())
ROWS = pa.schema(
    {
        "qid": _NAMES,
        "did": pa.string(),
        "setting": _NAMES,
        "pool": _NAMES,
        "rank": pa.int32(),
        "cosine": pa.float32(),
        "yes": pa.float32(),
        "retriever": _NAMES,
        "teacher": _NAMES,
        "revision": _NAMES,
    }
)
"""Columns of a shard. `rank` counts from 1."""
LISTS = pa.schema(
    {
        **{name: pa.string() for name in ("qid", "setting", "pool", "retriever", "teacher", "revision")},
        **{name: pa.int32() for name in ("start", "length", "positives")},
    }
)
"""Columns of a shard's index. `positives`: how many of the query's right answers are in the list."""

Counts: TypeAlias = dict[str, dict[str, dict[str, dict[str, int]]]]
"""revision -> setting -> pool -> `{"lists": ..., "with_positive": ...}`."""


@dataclass(frozen=True)
class Shard:
    """Lists and rows of a shard, a hash of what they say (without the teacher's label), and size and hash of each file."""

    lists: int
    rows: int
    content: str
    files: dict[str, tuple[int, str]]


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`.

    Attributes:
        data: fingerprint of what was scored.
        split: of the queries.
        instruction: which wording the queries carry.
        depth: candidates a list, at most.
        counts: lists, and those that hold a right answer, by teacher's revision, setting and pool.
        shards: in order.
    """

    data: str
    split: str
    instruction: str
    depth: int
    counts: Counts
    shards: tuple[Shard, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest and check that every file it names is there with its size.

        Raises:
            StoreError: no manifest, a damaged one, another format, or a file that is missing or has another size.
        """
        try:
            content = read_manifest(folder, FORMAT, AGAIN)
        except FileNotFoundError as error:
            raise StoreError(f"{folder}: no score table here ({NAME} is missing); `umr score` writes one") from error
        with blaming(folder / NAME, AGAIN):
            manifest = cls(**{**content, "shards": tuple(_shard(entry) for entry in content["shards"])})
        for shard in manifest.shards:
            check_sizes(folder, shard.files, AGAIN)
        return manifest

    def write(self, folder: Path) -> None:
        """Write the manifest; the files that it names are on disk before it is."""
        write_manifest(folder, FORMAT, asdict(self))

    def with_shard(self, shard: Shard, counts: Counts) -> Manifest:
        """The manifest of one more shard."""
        return replace(self, shards=(*self.shards, shard), counts=counts)

    def check(self, wanted: Manifest, folder: Path) -> None:
        """Raise `StoreError` where data, split, instruction or depth differ from those wanted."""
        for key in ("data", "split", "instruction", "depth"):
            here, there = getattr(self, key), getattr(wanted, key)
            if here != there:
                raise StoreError(f"{folder} holds scores of {key} {here!r}, not {there!r}: delete the folder or choose another one")


def _shard(entry: dict[str, Any]) -> Shard:
    return Shard(int(entry["lists"]), int(entry["rows"]), str(entry["content"]), files_of(entry))


@dataclass(frozen=True)
class Rows:
    """The candidates of one shard: N ids, their cosines and their P(Yes)."""

    dids: pa.StringArray
    cosine_N: npt.NDArray[np.float32]
    yes_N: npt.NDArray[np.float32]


class ShardReader:
    """Reads the shards of one table, and keeps those used last.

    Args:
        folder: of the table.
        shards: how many lists and rows each must have.
    """

    def __init__(self, folder: Path, shards: tuple[Shard, ...]) -> None:
        self.folder, self.shards = folder, shards
        self._kept: OrderedDict[int, Rows] = OrderedDict()

    def lists(self, number: int) -> pa.Table:
        """The index of a shard, with columns `LISTS`."""
        return self._read(number, f"{number:05d}.lists.parquet", list(LISTS.names), self.shards[number].lists)

    def rows(self, number: int) -> Rows:
        """The candidates of a shard."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        table = self._read(number, f"{number:05d}.parquet", ["did", "cosine", "yes"], self.shards[number].rows).combine_chunks()
        found = Rows(table["did"].chunk(0), table["cosine"].to_numpy(), table["yes"].to_numpy())
        self._kept[number] = found
        if len(self._kept) > SHARDS_IN_MEMORY:
            self._kept.popitem(last=False)
        return found

    def _read(self, number: int, name: str, columns: list[str], expected: int) -> pa.Table:
        path = self.folder / name
        try:
            table = pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: damaged scores ({error}); {AGAIN}") from error
        if len(table) != expected:
            raise StoreError(f"{path}: {len(table)} rows instead of {expected}; {AGAIN}")
        return table


def write_shard(folder: Path, number: int, rows: pa.Table, lists: pa.Table) -> Shard:
    """Write the two files of a shard and say what they hold."""
    contents = {f"{number:05d}.parquet": _parquet(rows), f"{number:05d}.lists.parquet": _parquet(lists)}
    for name, data in contents.items():
        files.write_bytes(folder / name, data)
    return Shard(len(lists), len(rows), _content(rows), {name: (len(data), digest(data)) for name, data in contents.items()})


def _content(rows: pa.Table) -> str:
    """Hash over the rows without the teacher's label, which is a path and differs between machines."""
    total = hashlib.blake2b(digest_size=16)
    for name in (name for name in rows.column_names if name != "teacher"):
        column = rows[name]
        values = column.to_numpy().tobytes() if pa.types.is_primitive(column.type) else "\0".join(column.to_pylist()).encode()
        total.update(f"{name} {len(values)}\n".encode() + values)
    return total.hexdigest()


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
