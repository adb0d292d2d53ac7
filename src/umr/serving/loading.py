"""What a server serves, from the words of a command line: models, and collections with the models that made their vectors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umr.errors import ModelError, RecipeError
from umr.models.embedder import Embedder
from umr.models.reranker import Reranker
from umr.search.settings import CollectionSettings
from umr.serving.collections import Collections, folders_of
from umr.serving.metrics import Metrics
from umr.serving.models import ServedEmbedder, ServedReranker
from umr.serving.runtime import Runtime
from umr.serving.service import Service
from umr.serving.settings import ServerSettings

logger = logging.getLogger("umr.serving")


def named(models: Sequence[str]) -> dict[str, str]:
    """Models by the name that callers use: `NAME=PATH`, or a path alone, whose last part is the name (of a hub id, the whole).

    Raises:
        RecipeError: two models have one name.
    """
    found: dict[str, str] = {}
    for model in models:
        name, equals, path = model.partition("=")
        path = path if equals else model
        folder = Path(path)
        if folder.is_dir():
            path = str(folder.resolve())
        if not equals:
            name = folder.resolve().name if folder.is_dir() else model
        if name in found:
            raise RecipeError(f"two models are called {name!r}; write NAME=PATH to tell them apart")
        found[name] = path
    return found


def load(
    settings: ServerSettings,
    models: Sequence[str] = (),
    rerankers: Sequence[str] = (),
    collections: Sequence[str] = (),
    home: Path | None = None,
    read_only: bool = False,
    shorter: Sequence[int] = (),
    **loading: Any,
) -> Service:
    """Load models, open collections, and start the threads that compute.

    A collection whose model is not among `models` brings it along, from where its settings say and with the precision and pixel budget that
    they say.

    Args:
        settings: of the server.
        models: embedders, see `named`.
        rerankers: likewise.
        collections: folders, or `NAME=FOLDER`.
        home: folder of further collections, in which callers may make new ones.
        read_only: callers may search, but change nothing.
        shorter: lengths to which vectors may be cut, for a server of one embedder that was trained so.
        **loading: what `Embedder.load` and `Reranker.load` take, such as `dtype`, `device` and `batch_tokens`.

    Raises:
        ModelError: a model cannot be loaded, or is not the one that made a collection.
        StoreError: a collection that is not there, or damaged.
        RecipeError: two things have one name, or a setting has no effect.
    """
    paths, judging, folders = named(models), named(rerankers), folders_of(collections, home)
    if both := set(paths) & set(judging):
        raise RecipeError(f"an embedder and a reranker are both called {min(both)!r}; write NAME=PATH to tell them apart")
    embedders = {name: Embedder.load(path, **loading) for name, path in paths.items()}
    for folder in folders.values():
        _bring(folder, embedders, paths, loading)
    if shorter and len(embedders) != 1:
        raise RecipeError("shorter vectors are a property of one model; serve it alone")
    judges = {name: Reranker.load(path, **loading) for name, path in judging.items()}
    service = assemble(settings, embedders, judges, shorter, paths)
    if folders or home is not None:
        service.collections = Collections(service.embedders, home, read_only)
        try:
            for name, folder in folders.items():
                service.collections.open(folder, name)
        except BaseException:
            service.close()
            raise
    return service


def _bring(folder: Path, embedders: dict[str, Embedder], paths: dict[str, str], loading: dict[str, Any]) -> None:
    """Load the model of a collection unless it is there."""
    settings = CollectionSettings.read(folder)
    if any(model.fingerprint == settings.fingerprint for model in embedders.values()):
        return
    model = Embedder.load(settings.model, **{**loading, **settings.loading})
    settings.check_model(model.fingerprint, model.dimension, folder)
    (name, path), *_ = named([settings.model]).items()
    name = name if name not in paths else f"{name}-{settings.fingerprint[:8]}"
    embedders[name], paths[name] = model, path


def assemble(
    settings: ServerSettings,
    embedders: dict[str, Embedder],
    rerankers: dict[str, Reranker],
    shorter: Sequence[int] = (),
    paths: dict[str, str] | None = None,
) -> Service:
    """A service of models that are loaded.

    Args:
        settings: of the server.
        embedders: by name.
        rerankers: by name.
        shorter: lengths to which vectors may be cut.
        paths: where embedders came from, by name.
    """
    fingerprints = {name: model.fingerprint for name, model in embedders.items()} | {
        name: model.fingerprint for name, model in rerankers.items()
    }
    for name, fingerprint in fingerprints.items():  # computed now: the first request need not wait
        logger.info("model %s has the fingerprint %s", name, fingerprint)
    metrics = Metrics()
    runtime = Runtime(settings.limits.prepare_threads, settings.limits.batch_wait_seconds, metrics.observe_batch)
    try:
        served = {name: ServedEmbedder(name, model, runtime, shorter, (paths or {}).get(name, "")) for name, model in embedders.items()}
    except ModelError:
        runtime.close()
        raise
    return Service(settings, runtime, served, {name: ServedReranker(name, model, runtime) for name, model in rerankers.items()}, metrics)
