"""The manifest of a vector store: whose vectors these are, and which files hold them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from umr.errors import StoreError
from umr.store.shard_folder import NAME, blaming, check_sizes, files_of, read_manifest, write_manifest

FORMAT = 1
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
        try:
            content = read_manifest(folder, FORMAT, AGAIN)
        except FileNotFoundError as error:
            raise StoreError(f"{folder}: no vector store here ({NAME} is missing)") from error
        with blaming(folder / NAME, AGAIN):
            shards = tuple(Shard(int(entry["rows"]), files_of(entry)) for entry in content["shards"])
            manifest = cls(**{**content, "shards": shards})
        for shard in manifest.shards:
            check_sizes(folder, shard.files, AGAIN)
        return manifest

    def write(self, folder: Path) -> None:
        """Write the manifest; the files that it names are on disk before it is."""
        write_manifest(folder, FORMAT, asdict(self))

    def with_shard(self, shard: Shard) -> Manifest:
        """The manifest of one more shard."""
        return replace(self, shards=(*self.shards, shard))

    def check(self, wanted: Manifest, folder: Path) -> None:
        """Raise `StoreError` where model, dimension, side or source differ from those wanted."""
        for key in ("fingerprint", "dimension", "side", "source"):
            here, there = getattr(self, key), getattr(wanted, key)
            if here != there:
                raise StoreError(f"{folder} holds vectors of {key} {here!r}, not {there!r}: delete the folder or choose another one")
