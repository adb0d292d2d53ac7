"""What the routes of a server share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pydantic_core
from fastapi import HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from umr.items import Item
from umr.search.collection import Collection
from umr.serving.collections import Collections
from umr.serving.errors import RequestError
from umr.serving.fetching import Fetcher
from umr.serving.gate import Gate
from umr.serving.guard import RECORD
from umr.serving.inputs import AnyInput
from umr.serving.metrics import Metrics
from umr.serving.models import ServedEmbedder, ServedReranker
from umr.serving.reading import Reader
from umr.serving.runtime import Runtime
from umr.serving.settings import ServerSettings


@dataclass
class Service:
    """What the routes of a server share.

    Attributes:
        settings: of the server.
        runtime: its threads.
        embedders: by name.
        rerankers: by name.
        metrics: what is counted.
        collections: what can be searched; None for none.
        fetcher: gets media from addresses; by default as the settings say.
        ready: whether new requests are welcome; False while shutting down.
    """

    settings: ServerSettings
    runtime: Runtime
    embedders: Mapping[str, ServedEmbedder]
    rerankers: Mapping[str, ServedReranker]
    metrics: Metrics
    collections: Collections | None = None
    fetcher: Fetcher | None = None
    ready: bool = True
    gate: Gate = field(init=False)
    reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.settings.limits)
        self.reader = Reader(self.runtime, self.fetcher or Fetcher(self.settings.urls), self.gate)
        self.metrics.watch_queue(lambda: self.gate.items, lambda: self.gate.bytes)

    def embedder(self, name: str) -> ServedEmbedder:
        """An embedder by name. Raises `RequestError` 404 for another."""
        return _named(self.embedders, name, "embeds")

    def reranker(self, name: str) -> ServedReranker:
        """A reranker by name. Raises `RequestError` 404 for another."""
        return _named(self.rerankers, name, "reranks")

    def collection(self, name: str) -> Collection:
        """A collection by name. Raises `RequestError` 404 for another."""
        return self.all_collections.get(name)

    @property
    def all_collections(self) -> Collections:
        """The collections. Raises `RequestError` 404 where the server has none."""
        if self.collections is None:
            raise RequestError(404, "this server has no collections", "collection_not_found")
        return self.collections

    def close(self) -> None:
        """Finish what was begun, and let go of everything."""
        self.ready = False
        self.runtime.close()
        if self.collections is not None:
            self.collections.close()

    @asynccontextmanager
    async def items(self, request: Request, inputs: Sequence[AnyInput]) -> AsyncIterator[list[Item]]:
        """Items of a request, with room held for them.

        Raises:
            RequestError: too many of them, now or ever; or a medium cannot be had.
        """
        with self.gate.enter(len(inputs)):
            request.scope[RECORD].items = len(inputs)
            async with self.reader.items(inputs) as items:
                yield items

    async def json(self, make: Callable[[], Any]) -> Response:
        """An answer whose content is made and written in the pool: thousands of numbers take longer than an event loop may be held."""
        return Response(await self.runtime.aside(partial(_to_json, make)), media_type="application/json")


def _to_json(make: Callable[[], Any]) -> bytes:
    return pydantic_core.to_json(make())


def _named(models: Mapping[str, Any], name: str, does: str) -> Any:
    if name not in models:
        have = f"it has {', '.join(sorted(models))}" if models else "it has none"
        raise RequestError(404, f"this server has no model {name!r} that {does}; {have}", "model_not_found", "model")
    return models[name]


class StrictRequest(Request):
    """A request whose JSON is read strictly: UTF-8 without lone surrogates, no NaN, no bottomless nesting."""

    async def json(self) -> Any:
        """The body. Raises `HTTPException` 400 when it is not JSON."""
        try:
            return pydantic_core.from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error


class StrictRoute(APIRoute):
    """A route that reads its requests as `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return handle
