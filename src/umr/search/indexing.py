"""`umr index` as a function: a folder or a manifest into a collection, which is made where there is none."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from umr.errors import DataError, RecipeError, StoreError
from umr.protocols import Encoder
from umr.search.ingest import Counts, index_folder, index_units
from umr.search.manifest_rows import is_manifest, manifest_units
from umr.search.models import template_hash
from umr.search.report import Report
from umr.search.settings import CollectionSettings
from umr.search.units import Reading

if TYPE_CHECKING:
    from umr.search.lance import LanceTable

LOCK = ".indexing"
"""In the collection's folder; held while a folder is indexed into it."""


@dataclass
class Indexing:
    """A collection and what is indexed into it. Make one with `Indexing.begin`, then call `run` as often as files may have changed.

    Attributes:
        source: the folder or the manifest.
        collection: the collection's folder.
        settings: of the collection.
        table: its rows.
        encoder: its model.
        reading: how files are read.
        hidden: whether files whose name begins with a dot are read.
    """

    source: Path
    collection: Path
    settings: CollectionSettings
    table: LanceTable
    encoder: Encoder
    reading: Reading = field(default_factory=Reading)
    hidden: bool = False

    @classmethod
    def begin(
        cls,
        source: Path | str | None,
        collection: Path | str,
        model: Encoder | str | Path | None = None,
        *,
        reading: Reading | None = None,
        hidden: bool = False,
        instruction: str | None = None,
        dtype: str = "float32",
        batch_tokens: int | None = None,
    ) -> Indexing:
        """Open a collection, or make it, and load its model.

        Args:
            source: a folder, or a `.jsonl` or `.parquet` manifest. Default: what the collection was made from.
            collection: the collection's folder.
            model: folder or hub id of the model, or one that is loaded. Default: what the collection was made with.
            reading: how files are read; see there for the defaults.
            hidden: whether files whose name, or a folder's, begins with a dot are read.
            instruction: what queries are asked with where a search names none; for a new collection.
            dtype: of a model that is not loaded; part of its fingerprint.
            batch_tokens: token budget of a batch; for a model that is not loaded. Default: by device.

        Raises:
            RecipeError: a new collection without a source or a model, or a setting that an existing one does not have.
            StoreError: the collection is damaged, of another source, or of another model.
            ModelError: the model cannot be loaded.
            DataError: the source cannot be read.
        """
        from umr.search.lance import LanceTable

        folder, reading = Path(collection), reading or Reading()
        if source is not None:
            _check_effect(Path(source), reading, hidden)
        if not CollectionSettings.exist(folder):
            if source is None or model is None:
                raise RecipeError(f"{folder}: no collection here yet; to make one, give a folder to index and a model")
            root, manifest = _place(Path(source))
            if not Path(source).exists():
                raise DataError(f"{source}: does not exist")
            name, encoder = _loaded(model, dtype, batch_tokens)
            table = LanceTable.create(folder, encoder.dimension)
            settings = CollectionSettings(
                model=name,
                fingerprint=encoder.fingerprint,
                dimension=encoder.dimension,
                template_hash=template_hash(encoder),
                instruction=instruction,
                root=str(root),
                manifest=manifest,
            )
            settings.write(folder)  # last: a folder without it holds no collection, and can be made again
            return cls(Path(source), folder, settings, table, encoder, reading, hidden)
        settings = CollectionSettings.read(folder)
        if instruction is not None and instruction != settings.instruction:
            raise RecipeError(f"{folder}: its instruction is {settings.instruction!r}; another one has no effect, leave it out")
        here = _same_source(settings, folder, None if source is None else Path(source))
        _check_effect(here, reading, hidden)
        revision = settings.revision if model is None else None
        _, encoder = _loaded(settings.model if model is None else model, dtype, batch_tokens, revision)
        settings.check_model(encoder.fingerprint, encoder.dimension, folder)
        if settings.root is None:
            root, manifest = _place(here)
            settings = settings.model_copy(update={"root": str(root), "manifest": manifest})
            settings.write(folder)
        return cls(here, folder, settings, LanceTable.open(folder), encoder, reading, hidden)

    def run(self) -> Counts:
        """Bring the collection up to date with its source; see `umr.search.ingest.index_folder`.

        Raises:
            StoreError: another process is indexing into this collection.
            DataError: the source cannot be read, or is empty though the collection is not.
        """
        with _alone(self.collection):
            if is_manifest(self.source):
                counts = index_units(manifest_units(self.source), self.table, self.encoder, str(self.source))
            else:
                counts = index_folder(
                    self.source, self.table, self.encoder, reading=self.reading, hidden=self.hidden, leave_out=self.collection
                )
            if counts.embedded or counts.reused or counts.forgotten:
                self.table.tidy()
            return counts

    def report(self) -> Report:
        """What became of every file."""
        return Report.of(self.table.files())


def _loaded(model: Encoder | str | Path, dtype: str, batch_tokens: int | None, revision: str | None = None) -> tuple[str, Encoder]:
    """A model with the name that it is found by again; of a folder the whole path, so that it is found from elsewhere, too."""
    if not isinstance(model, str | Path):
        return f"a loaded {type(model).__name__}", model
    from umr.models.embedder import Embedder

    name = str(Path(model).resolve()) if Path(model).exists() else str(model)
    return name, Embedder.load(model, dtype=dtype, batch_tokens=batch_tokens, revision=revision)


def _place(source: Path) -> tuple[Path, str | None]:
    """The folder that media lie in, and the name of the manifest in it, if it is one."""
    return (source.absolute().parent.resolve(), source.name) if is_manifest(source) else (source.resolve(), None)


def _check_effect(source: Path, reading: Reading, hidden: bool) -> None:
    """Raise `RecipeError` for a way of reading files where there is a manifest, whose rows say what they are."""
    if is_manifest(source) and (hidden or reading != Reading()):
        raise RecipeError(f"{source}: how files are read is said for folders; for a manifest it has no effect, leave it out")


def _same_source(settings: CollectionSettings, folder: Path, source: Path | None) -> Path:
    """What a collection is made from; raises `StoreError` where `source` is something else."""
    made_from = None if settings.root is None else Path(settings.root) / (settings.manifest or "")
    if source is None:
        if made_from is None:
            raise RecipeError(f"{folder}: was not made from a folder; say which one to index")
        return made_from
    if made_from is not None and _place(source) != (Path(settings.root or ""), settings.manifest):
        raise StoreError(f"{folder}: is the collection of {made_from}, not of {source}; choose another folder for the collection")
    return source


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{folder}: another process is indexing into this collection; wait for it") from error
        yield
