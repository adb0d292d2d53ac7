"""`collection.json`: which model a collection's vectors came from, and what else must not change under them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umr import files
from umr.errors import RecipeError, StoreError
from umr.search.durability import flush_folder
from umr.search.readers.texts import CHUNK
from umr.search.readers.videos import CLIP
from umr.search.units import Reading

FORMAT = 1
NAME = "collection.json"

Texts: TypeAlias = Literal["plain", "mbeir"]
"""What becomes of texts before a model reads them: nothing, or what M-BEIR's reader does (`umr.search.cleaning`)."""


class CollectionSettings(BaseModel):
    """The contents of `collection.json`; keys that are not declared are errors.

    Attributes:
        model: folder or hub id, as `Embedder.load` was given it.
        revision: of a hub model.
        fingerprint: `Encoder.fingerprint` of the model; vectors of another one are never mixed in.
        dimension: length of a vector.
        template_hash: of the model's template; None for a model that has its own rendering.
        dtype: precision of the model.
        max_pixels: images and video frames are reduced to this area for the model; None for the model's own budget.
        texts: how texts are given to the model.
        instruction: what queries are asked with where a search names none.
        root: the folder that is indexed, absolute; None for a collection that was filled otherwise.
        manifest: name of the manifest in `root` that is indexed; None where the folder itself is.
        captions, chunk, clip_seconds: how files of the folder are read; see `umr.search.units.Reading`.
        hidden: whether files whose name, or a folder's, begins with a dot are read.
        store: where the rows are: None for LanceDB beside this file, else the address of a store, such as `milvus:URI`.
        created: when.
        format: of this file and of the tables.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    format: int = FORMAT
    model: str = Field(min_length=1)
    revision: str | None = None
    fingerprint: str = Field(min_length=1)
    dimension: int = Field(ge=1)
    template_hash: str | None = None
    dtype: str = "float32"
    max_pixels: int | None = Field(default=None, ge=1)
    texts: Texts = "plain"
    instruction: str | None = None
    root: str | None = None
    manifest: str | None = None
    captions: bool = True
    chunk: int = Field(default=CHUNK, ge=100)
    clip_seconds: float = Field(default=CLIP, ge=0.5)
    hidden: bool = False
    store: str | None = None
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    @property
    def reading(self) -> Reading:
        """How files of the folder are read."""
        return Reading(self.captions, self.chunk, self.clip_seconds)

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of `Embedder.load` with which the model gives this collection's vectors."""
        return {"revision": self.revision, "dtype": self.dtype, "max_pixels": self.max_pixels}

    def changed(self, **values: Any) -> Self:
        """These settings with other values.

        Raises:
            RecipeError: a value that is out of range.
        """
        try:
            return type(self).model_validate({**self.model_dump(), **values})
        except ValidationError as error:
            first = error.errors()[0]
            raise RecipeError(f"{'.'.join(map(str, first['loc']))}={first['input']!r}: {first['msg']}") from error

    @staticmethod
    def exist(folder: Path) -> bool:
        """Whether `folder` holds a collection."""
        return (folder / NAME).is_file()

    @classmethod
    def read(cls, folder: Path) -> CollectionSettings:
        """Read the settings of the collection in `folder`.

        Raises:
            StoreError: there is none, the file is damaged, or a newer version wrote it.
        """
        path = folder / NAME
        try:
            text = path.read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(
                f"{folder}: no collection here ({NAME} is missing); make one with `umr index FOLDER --collection DIR`"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}: cannot be read ({error})") from error
        try:
            format = _Format.model_validate_json(text).format
            if format != FORMAT:
                newer = "a newer version of umr wrote it: upgrade" if format > FORMAT else "index the folder again"
                raise StoreError(f"{path}: format {format}, but this version reads format {FORMAT}; {newer}")
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            what = ".".join(map(str, first["loc"])) or "the file"
            raise StoreError(f"{path}: damaged: {what}: {first['msg']}; restore the file, or index the folder again") from error

    def write(self, folder: Path) -> None:
        """Write the settings, whole or not at all, and make sure that they survive a power cut.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            files.write_text(folder / NAME, self.model_dump_json(indent=1) + "\n")
            flush_folder(folder)
        except OSError as error:
            raise StoreError(f"{folder / NAME}: cannot be written ({error.strerror})") from error

    def check_model(self, fingerprint: str, dimension: int, folder: Path) -> None:
        """Raise `StoreError` where a model is not the one that made the collection's vectors."""
        if (fingerprint, dimension) != (self.fingerprint, self.dimension):
            raise StoreError(
                f"{folder} holds vectors of {self.model} (fingerprint {self.fingerprint}, dimension {self.dimension}), but this model has "
                f"fingerprint {fingerprint}, dimension {dimension}; open it with the model that made it, or index into another folder"
            )


class _Format(BaseModel):
    format: int
