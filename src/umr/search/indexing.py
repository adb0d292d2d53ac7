"""`umr index` as a function: a folder or a manifest into a collection, which is made where there is none."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.errors import DataError, RecipeError, StoreError
from umr.protocols import Encoder
from umr.search.ingest import Counts, index_folder, index_units
from umr.search.manifest_rows import is_manifest, manifest_units
from umr.search.models import dtype_of, reading_texts, template_hash
from umr.search.report import Report
from umr.search.settings import CollectionSettings, Texts

if TYPE_CHECKING:
    from umr.search.lance import LanceTable

LOCK = ".indexing"
"""In the collection's folder; held while a folder is indexed into it."""
READING = ("captions", "chunk", "clip_seconds", "hidden")
"""Settings that may change: files are then read again."""
LOADING = ("dtype", "max_pixels")
"""Settings that the model is loaded with, on which all vectors depend."""


@dataclass
class Indexing:
    """A collection and what is indexed into it. Make one with `Indexing.begin`, then call `run` as often as files may have changed.

    Attributes:
        source: the folder or the manifest.
        collection: the collection's folder.
        settings: of the collection.
        table: its rows.
        encoder: its model.
        told: settings that differ from now on. The first run keeps them, and reads again what they concern.
    """

    source: Path
    collection: Path
    settings: CollectionSettings
    table: LanceTable
    encoder: Encoder
    told: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(
        cls,
        source: Path | str | None,
        collection: Path | str,
        model: Encoder | str | Path | None = None,
        *,
        captions: bool | None = None,
        chunk: int | None = None,
        clip_seconds: float | None = None,
        hidden: bool | None = None,
        instruction: str | None = None,
        texts: Texts | None = None,
        dtype: str | None = None,
        max_pixels: int | None = None,
        batch_tokens: int | None = None,
    ) -> Indexing:
        """Open a collection, or make it, and load its model.

        What decides vectors or rows is kept in `collection.json`, and None stands for what is kept there. Ways of reading may be changed
        later (files are then read again); what all vectors depend on may not.

        Args:
            source: a folder, or a `.jsonl` or `.parquet` manifest. Default: what the collection was made from.
            collection: the collection's folder.
            model: folder or hub id of the model, or one that is loaded. Default: what the collection was made with.
            captions, chunk, clip_seconds: how files are read; see `umr.search.units.Reading`, also for the values of a new collection.
            hidden: whether files whose name, or a folder's, begins with a dot are read. New collections: no.
            instruction: what queries are asked with where a search names none; for a new collection.
            texts: `"mbeir"` for a model that was trained on texts as M-BEIR's reader gives them, `"plain"` (default) for all others.
            dtype: of a model that is not loaded; part of its fingerprint. New collections: float32.
            max_pixels: pixel budget of a model that is not loaded; part of its fingerprint. New collections: the model's own.
            batch_tokens: token budget of a batch; for a model that is not loaded. Default: by device.

        Raises:
            RecipeError: a new collection without a source or a model, or a setting that cannot be had or has no effect.
            StoreError: the collection is damaged, of another source, or of another model.
            ModelError: the model cannot be loaded.
            DataError: the source cannot be read.
        """
        from umr.search.lance import LanceTable

        folder = Path(collection)
        reading = _said(captions=captions, chunk=chunk, clip_seconds=clip_seconds, hidden=hidden)
        loading = _said(dtype=dtype, max_pixels=max_pixels)
        if model is not None and not isinstance(model, str | Path) and loading:
            raise RecipeError(f"{next(iter(loading))} has no effect on a model that is loaded; leave it out")
        if not CollectionSettings.exist(folder):
            if source is None or model is None:
                raise RecipeError(f"{folder}: no collection here yet; to make one, give a folder to index and a model")
            given = reading | loading | _said(instruction=instruction, texts=texts)
            return cls._new(Path(source), folder, model, given, batch_tokens)
        settings = CollectionSettings.read(folder)
        if instruction is not None and instruction != settings.instruction:
            raise RecipeError(f"{folder}: its instruction is {settings.instruction!r}; another one has no effect, leave it out")
        for name, value in (loading | _said(texts=texts)).items():
            if value != (kept := getattr(settings, name)):
                raise RecipeError(
                    f"{folder}: was made with {name}={kept}, and {name}={value} gives other vectors; leave it out, or choose another folder"
                )
        here = _same_source(settings, folder, None if source is None else Path(source))
        _check_effect(here, reading)
        asked = dict(reading)
        if settings.root is None:
            root, asked["manifest"] = _place(here)
            asked["root"] = str(root)
        wanted = settings.changed(**asked)
        loading = settings.loading if model is None else {**settings.loading, "revision": None}
        encoder = _loaded(settings.model if model is None else model, batch_tokens, loading)
        settings.check_model(encoder.fingerprint, encoder.dimension, folder)
        told = {name: value for name, value in asked.items() if getattr(wanted, name) != getattr(settings, name)}
        return cls(here, folder, settings, LanceTable.open(folder), reading_texts(encoder, settings), told)

    @classmethod
    def _new(cls, source: Path, folder: Path, model: Encoder | str | Path, given: dict[str, Any], batch_tokens: int | None) -> Indexing:
        """Make a collection; `given` are settings of it."""
        from umr.search.lance import LanceTable

        _check_effect(source, {name: value for name, value in given.items() if name in READING})
        root, manifest = _place(source)
        if not source.exists():
            raise DataError(f"{source}: does not exist")
        encoder = _loaded(model, batch_tokens, {name: given[name] for name in LOADING if name in given})
        settings = CollectionSettings(
            model=_name(model),
            fingerprint=encoder.fingerprint,
            dimension=encoder.dimension,
            template_hash=template_hash(encoder),
            dtype="float32" if isinstance(model, str | Path) else dtype_of(encoder),
            root=str(root),
            manifest=manifest,
        ).changed(**given)
        table = LanceTable.create(folder, encoder.dimension)
        settings.write(folder)  # last: a folder without it holds no collection, and can be made again
        return cls(source, folder, settings, table, reading_texts(encoder, settings))

    @property
    def hidden(self) -> bool:
        """Whether files whose name, or a folder's, begins with a dot are read."""
        return bool(self.told.get("hidden", self.settings.hidden))

    def run(self) -> Counts:
        """Bring the collection up to date with its source; see `umr.search.ingest.index_folder`.

        Raises:
            StoreError: another process is indexing into this collection.
            DataError: the source cannot be read, or is empty though the collection is not.
        """
        with _alone(self.collection):
            self._keep()
            if is_manifest(self.source):
                counts = index_units(manifest_units(self.source), self.table, self.encoder, str(self.source))
            else:
                reading, hidden = self.settings.reading, self.settings.hidden
                counts = index_folder(self.source, self.table, self.encoder, reading=reading, hidden=hidden, leave_out=self.collection)
            if counts.embedded or counts.reused or counts.forgotten:
                self.table.tidy()
            return counts

    def _keep(self) -> None:
        """Go by the settings as they are now, since another process may have changed them, and write down what this one was told.

        That comes before any file is read, so that a run which is broken off is finished in the same way by the next.
        """
        kept = CollectionSettings.read(self.collection)
        kept.check_model(self.encoder.fingerprint, self.encoder.dimension, self.collection)  # it may have been made anew
        self.settings = kept.changed(**self.told)
        if self.settings != kept:
            self.settings.write(self.collection)
        self.told = {}

    def report(self) -> Report:
        """What became of every file."""
        return Report.of(self.table.files())


def _said(**values: Any) -> dict[str, Any]:
    """Those that were said."""
    return {name: value for name, value in values.items() if value is not None}


def _name(model: Encoder | str | Path) -> str:
    """What a model is found by again; of a folder the whole path, so that it is found from elsewhere, too."""
    if not isinstance(model, str | Path):
        return f"a loaded {type(model).__name__}"
    return str(Path(model).resolve()) if Path(model).exists() else str(model)


def _loaded(model: Encoder | str | Path, batch_tokens: int | None, loading: dict[str, Any]) -> Encoder:
    """A model, unless it is loaded already."""
    if not isinstance(model, str | Path):
        return model
    from umr.models.embedder import Embedder

    return Embedder.load(model, batch_tokens=batch_tokens, **loading)


def _place(source: Path) -> tuple[Path, str | None]:
    """The folder that media lie in, and the name of the manifest in it, if it is one."""
    return (source.absolute().parent.resolve(), source.name) if is_manifest(source) else (source.resolve(), None)


def _check_effect(source: Path, reading: dict[str, Any]) -> None:
    """Raise `RecipeError` for a way of reading files where there is a manifest, whose rows say what they are."""
    if reading and is_manifest(source):
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
