"""What every folder of numbered shards has in common: files renamed into place, then a manifest that names them, and one writer at a time.

Temporary files begin with a dot, shards with a digit, so what a killed writer left behind is known by its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umr import files
from umr.errors import StoreError

NAME = "manifest.json"
Files = Mapping[str, tuple[int, str]]
"""Size in bytes and BLAKE2b hash of each file of a shard, by name."""


def digest(data: bytes) -> str:
    """The hash that manifests keep of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_manifest(folder: Path, version: int, again: str) -> dict[str, Any]:
    """The contents of a folder's manifest, without its format.

    Args:
        folder: of the shards.
        version: of the format that the caller reads.
        again: what a user should do about a damaged folder.

    Raises:
        StoreError: no JSON object, or another format.
        FileNotFoundError: no manifest.
    """
    path = folder / NAME
    with blaming(path, again):
        content: dict[str, Any] = json.loads(path.read_text())
        found = content.pop("format")
    if found != version:
        raise StoreError(f"{path}: format {found}, but this version reads format {version}: {again}")
    return content


@contextmanager
def blaming(path: Path, again: str) -> Iterator[None]:
    """Turn whatever goes wrong while a manifest is taken apart into one line about it; that it is missing stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: damaged manifest ({error}); {again}") from error


def write_manifest(folder: Path, version: int, content: Mapping[str, Any]) -> None:
    """Write the manifest, making sure that the files it names reach the disk before it does."""
    files.flush(folder)
    files.write_text(folder / NAME, json.dumps({"format": version, **content}, indent=1, sort_keys=True) + "\n")
    files.flush(folder)


def files_of(entry: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """The files of a shard, out of its entry in a manifest."""
    return {name: (int(size), str(content)) for name, (size, content) in entry["files"].items()}


def check_sizes(folder: Path, shard: Files, again: str) -> None:
    """Raise `StoreError` where a file of a shard is missing or has another size."""
    for name, (size, _) in shard.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise StoreError(f"{folder / name}: shard file is missing; {again}") from error
        if found != size:
            raise StoreError(f"{folder / name}: damaged shard, {found} bytes instead of {size}; {again}")


def check_contents(folder: Path, shard: Files, again: str) -> None:
    """Read a shard's files whole. Raises `StoreError` where one is not what was written."""
    for name, (_, expected) in shard.items():
        if digest((folder / name).read_bytes()) != expected:
            raise StoreError(f"{folder / name}: damaged shard, contents have changed; {again}")


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Keep other writers out, and remove temporary files of one that was killed.

    Raises:
        StoreError: another process is writing.
    """
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{folder}: another process is writing here; wait for it or choose another folder") from error
        for pattern in (".0*", f".{NAME}.*"):
            for leftover in folder.glob(pattern):
                leftover.unlink(missing_ok=True)
        yield
