"""The manifest of a vector store: whose vectors these are, and which files hold them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from umr import files
from umr.errors import StoreError

FORMAT = 1
NAME = "manifest.json"
AGAIN = "delete the folder and embed again"


@dataclass(frozen=True)
class Shard:
    """Rows of a shard, and the size in bytes and BLAKE2b hash of each of its files by name."""

    rows: int
    files: dict[str, tuple[int, str]]


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`.

    Attributes:
        fingerprint: of the model that made the vectors.
        dimension: length of a vector.
        side: `"query"` or `"candidate"`.
        source: label of the data.
        shards: in row order.
    """

    fingerprint: str
    dimension: int
    side: str
    source: str
    shards: tuple[Shard, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest and check that every file it names is there with its size.

        Raises:
            StoreError: no manifest, a damaged one, another format, or a shard file that is missing or has another size.
        """
        path = folder / NAME
        try:
            content = json.loads(path.read_text())
            version = content.pop("format")
            if version != FORMAT:
                raise StoreError(f"{path}: format {version}, but this version reads format {FORMAT}: {AGAIN}")
            shards = tuple(
                Shard(int(shard["rows"]), {name: (s, d) for name, (s, d) in shard["files"].items()}) for shard in content["shards"]
            )
            manifest = cls(**{**content, "shards": shards})
        except FileNotFoundError as error:
            raise StoreError(f"{folder}: no vector store here ({NAME} is missing)") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path}: damaged manifest ({error}); {AGAIN}") from error
        for shard in manifest.shards:
            for name, (size, _) in shard.files.items():
                _check_size(folder / name, size)
        return manifest

    def write(self, folder: Path) -> None:
        """Write the manifest, making sure that the files it names reach the disk before it does."""
        _flush_folder(folder)
        files.write_text(folder / NAME, json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n")
        _flush_folder(folder)

    def with_shard(self, shard: Shard) -> Manifest:
        """The manifest of one more shard."""
        return replace(self, shards=(*self.shards, shard))

    def check(self, wanted: Manifest, folder: Path) -> None:
        """Raise `StoreError` where model, dimension, side or source differ from those wanted."""
        for key in ("fingerprint", "dimension", "side", "source"):
            here, there = getattr(self, key), getattr(wanted, key)
            if here != there:
                raise StoreError(f"{folder} holds vectors of {key} {here!r}, not {there!r}: delete the folder or choose another one")


def digest(data: bytes) -> str:
    """The hash that manifests keep of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _shard(entry: dict[str, Any]) -> Shard:
    return Shard(int(entry["rows"]), {name: (size, content) for name, (size, content) in entry["files"].items()})


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path}: shard file is missing; {AGAIN}") from error
    if found != size:
        raise StoreError(f"{path}: damaged shard, {found} bytes instead of {size}; {AGAIN}")


def _flush_folder(path: Path) -> None:
    """Make renames in `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
