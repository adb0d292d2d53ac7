"""The collections of a server, by name, each with a model that the server shares among all requests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from umr.errors import ModelError, RecipeError, UmrError
from umr.search.collection import Collection
from umr.search.settings import CollectionSettings
from umr.serving.errors import RequestError
from umr.serving.models import ServedEmbedder

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"


class Collections:
    """Collections by name.

    Args:
        embedders: models by name, among which each collection finds its own by its fingerprint.
        home: folder in which callers may make new collections, and whose collections are served; None for none.
        read_only: whether callers may search alone.
    """

    def __init__(self, embedders: Mapping[str, ServedEmbedder], home: Path | None = None, read_only: bool = False) -> None:
        self._embedders, self._home, self._read_only = embedders, home, read_only
        self._collections: dict[str, Collection] = {}
        self._making = Lock()

    @property
    def names(self) -> list[str]:
        """In order."""
        return sorted(self._collections)

    def open(self, folder: Path, name: str) -> None:
        """Serve a collection that is there.

        Raises:
            RecipeError: there is one of this name.
            StoreError: there is no collection in the folder, or it is damaged.
            ModelError: no model of the server made its vectors.
        """
        if not re.fullmatch(NAME, name):
            raise RecipeError(
                f"{name!r} cannot be a collection's name in addresses; write NAME=FOLDER with letters, digits, '.', '_' and '-'"
            )
        if name in self._collections:
            raise RecipeError(f"two collections are called {name!r}; write NAME=FOLDER to tell them apart")
        fingerprint = CollectionSettings.read(folder).fingerprint
        model = next((one for one in self._embedders.values() if one.fingerprint == fingerprint), None)
        if model is None:
            raise ModelError(f"{folder}: no model of this server made its vectors (fingerprint {fingerprint}); serve that model, too")
        self._collections[name] = Collection.open(folder, model, concurrent=True)

    def get(self, name: str) -> Collection:
        """A collection by name. Raises `RequestError` 404 for another."""
        if name not in self._collections:
            have = f"it has {', '.join(self.names)}" if self._collections else "it has none"
            raise RequestError(404, f"this server has no collection {name!r}; {have}", "collection_not_found", "collection")
        return self._collections[name]

    def model_of(self, name: str) -> str:
        """The name that callers know a collection's model by."""
        fingerprint = self.get(name).settings.fingerprint
        return next(model.name for model in self._embedders.values() if model.fingerprint == fingerprint)

    def changeable(self, name: str) -> Collection:
        """A collection that callers may change. Raises `RequestError` 403 on a server for searching alone, 404 for an unknown name."""
        self._check_writable()
        return self.get(name)

    def create(self, name: str, model: ServedEmbedder, path: str, instruction: str | None) -> Collection:
        """Make an empty collection in the home folder; not for the event loop's thread.

        Args:
            name: of the collection and of its folder.
            model: that embeds.
            path: where that model was loaded from.
            instruction: what queries are asked with where a search names none.

        Raises:
            RequestError: 403, this server makes none; 409, there is one already.
        """
        self._check_writable()
        if self._home is None:
            raise RequestError(403, "this server makes no collections; start it with --home FOLDER", "not_allowed")
        with self._making:
            folder = self._home / name
            if name in self._collections or folder.exists():
                raise RequestError(409, f"there is a collection or a folder {name!r} already", "collection_exists", "name")
            Collection.create(folder, model, instruction=instruction, model_name=path).close()
            self.open(folder, name)
            return self._collections[name]

    def close(self) -> None:
        """Let go of all collections."""
        for collection in self._collections.values():
            collection.close()

    def _check_writable(self) -> None:
        if self._read_only:
            raise RequestError(403, "this server is for searching alone", "read_only")


def folders_of(collections: Sequence[str], home: Path | None) -> dict[str, Path]:
    """Folders of collections by name: `NAME=FOLDER`, or a folder alone, whose last part is the name; and those below `home`.

    Raises:
        RecipeError: two collections have one name.
    """
    found: dict[str, Path] = {}
    for given in collections:
        name, equals, path = given.partition("=")
        folder = Path(path if equals else given)
        name = name if equals else folder.resolve().name
        if name in found:
            raise RecipeError(f"two collections are called {name!r}; write NAME=FOLDER to tell them apart")
        found[name] = folder
    if home is not None and home.is_dir():
        for folder in sorted(home.iterdir()):
            if CollectionSettings.exist(folder) and found.setdefault(folder.name, folder) != folder:
                raise RecipeError(f"two collections are called {folder.name!r}; write NAME=FOLDER to tell them apart")
    return found


@contextmanager
def told(collection: Collection) -> Iterator[None]:
    """Tell callers what is wrong with their request, without the folders of this machine."""
    try:
        yield
    except RequestError:
        raise
    except ModelError:
        raise
    except UmrError as error:
        message = str(error)
        for folder in {str(collection.folder), str(collection.folder.resolve()), str(collection.settings.root or "")} - {""}:
            message = message.replace(f"{folder}/", "").replace(folder, "the collection")
        raise RequestError(400, message, "invalid_input") from error
