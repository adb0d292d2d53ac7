"""Shards of a store that several workers make in any order, each of which counts once.

    <store>/pieces/00007/               a finished piece: the files of shard 7, and `shard.json`, which describes them
    <store>/pieces/.00007.<random>/     one that is being written, or was when its worker was killed

A worker writes a piece under a name of its own and renames the folder when everything is on disk. The second one to do so finds the
name taken and throws its own away. One process, the one that holds the store for writing, moves pieces into the store, in order, and
names them in the manifest. Killed at any moment, the same is done again with the same result.

That takes a file system on which renames are atomic and seen by all machines, as on local disks, NFS and Lustre. Object storage has none.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from umr import files
from umr.errors import StoreError
from umr.store.manifest import AGAIN, Shard
from umr.store.shard_files import describe
from umr.store.shard_folder import blaming, files_of
from umr.store.vectors import VectorStore

FOLDER, ABOUT = "pieces", "shard.json"


class Pieces:
    """The pieces of the store in a folder.

    Args:
        store: the folder of the store.
    """

    def __init__(self, store: Path) -> None:
        self._store, self._folder = Path(store), Path(store) / FOLDER

    def has(self, number: int) -> bool:
        """Whether piece `number` is finished and waits for being committed."""
        return self._place(number).is_dir()

    def put(self, number: int, rows: int, contents: Mapping[str, bytes]) -> bool:
        """Write a piece.

        Args:
            number: of the shard that it becomes.
            rows: of that shard.
            contents: its files by name.

        Returns:
            False when another worker was faster, whose piece stays.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            self._folder.mkdir(exist_ok=True)
            place = Path(tempfile.mkdtemp(dir=self._folder, prefix=f".{number:05d}."))
            try:
                place.chmod(0o755)  # mkdtemp makes it private, and the commit may be another user's
                for name, data in contents.items():
                    files.write_bytes(place / name, data)
                files.write_text(place / ABOUT, json.dumps(asdict(describe(rows, contents))) + "\n")
                files.flush(place)
                return self._rename(place, self._place(number))
            finally:
                shutil.rmtree(place, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot be written ({error.strerror}); what was there before is still good") from error

    def commit(self, store: VectorStore) -> None:
        """Move every finished piece that follows on the store's last shard into it, and name them in the manifest.

        Args:
            store: that of the folder, held by `store.writing()`.

        Raises:
            StoreError: a piece is damaged, or the store cannot be written.
        """
        adopted: list[Shard] = []
        try:
            while self.has(number := store.shards + len(adopted)):
                adopted.append(self._move(number))
            if adopted:
                files.flush(self._store)
                store.adopt(adopted)
            self._tidy(store.shards)
        except OSError as error:
            raise StoreError(f"{self._store}: cannot be written ({error.strerror}); what was there before is still good") from error

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:05d}"

    def _rename(self, place: Path, name: Path) -> bool:
        try:
            place.rename(name)
        except OSError:
            if name.is_dir():  # a folder that is not empty is not replaced
                return False
            raise
        files.flush(self._folder)
        return True

    def _move(self, number: int) -> Shard:
        """Move the files of a piece into the store. A commit that was killed may have moved some of them already."""
        place = self._place(number)
        about = place / ABOUT
        try:
            with blaming(about, AGAIN):
                entry = json.loads(about.read_text())
                shard = Shard(int(entry["rows"]), files_of(entry))
        except FileNotFoundError as error:
            raise StoreError(f"{about}: is missing; delete {place} and start again") from error
        for name in shard.files:
            if (place / name).exists():
                os.replace(place / name, self._store / name)
        return shard

    def _tidy(self, committed: int) -> None:
        """Remove what is committed, and what killed workers left behind."""
        if not self._folder.is_dir():
            return
        for place in self._folder.iterdir():
            if place.name.startswith(".") or int(place.name) < committed:
                shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # others wait for being committed
            self._folder.rmdir()
