"""The application: routes, their guard, errors in the callers' shapes, and an OpenAPI document that says all of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import umr
from umr.serving.cohere_api import cohere_router
from umr.serving.collections_api import collections_router, items_router
from umr.serving.errors import CohereErrorBody, ErrorBody, RequestError, respond
from umr.serving.guard import OPEN_PATHS, Guard
from umr.serving.health import health_router
from umr.serving.openai_api import openai_router
from umr.serving.page_routes import PAGE_PATHS, page_router
from umr.serving.ranking import rerank_router
from umr.serving.search_api import search_router
from umr.serving.service import Service

_ERRORS = {
    400: "The request is wrong; the message says what to change.",
    401: "The API key is missing or wrong.",
    403: "This server does not allow it.",
    404: "There is no such model, collection or item.",
    409: "It is there already.",
    408: "The body arrived too slowly.",
    413: "The body is too large.",
    421: "The server does not answer to this host name.",
    429: "Too much is under way; `Retry-After` says when to try again.",
    500: "A mistake of the server; the message holds the request id.",
    503: "The server is shutting down.",
    504: "The answer took too long.",
}


def create_app(service: Service) -> FastAPI:
    """The application of a server.

    Args:
        service: models, collections, limits and threads. It is closed when the application shuts down.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="umr", version=umr.__version__, summary="Universal multimodal retrieval", lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    app.include_router(health_router(service))
    app.include_router(openai_router(service))
    app.include_router(rerank_router(service))
    app.include_router(cohere_router(service))
    if service.collections is not None:
        app.include_router(search_router(service))
        app.include_router(collections_router(service))
        app.include_router(items_router(service))
        app.include_router(page_router(service))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _wrong_request)
    app.add_middleware(Guard, settings=service.settings, gate=service.gate, metrics=service.metrics, open_paths=PAGE_PATHS)  # type: ignore[arg-type]
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.openapi = lambda: _openapi(app, bool(service.settings.keys))  # type: ignore[method-assign]
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return respond(request.url.path, RequestError(error.status_code, str(error.detail)), error.headers)


async def _wrong_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # pydantic names the branches it tried, such as `<item>`, `list[...]` and `constrained-str`; what is left is the caller's own place
    place = [str(part) for part in first["loc"][1:] if isinstance(part, int) or re.fullmatch(r"\w+", part)]
    message = str(first["msg"]).removeprefix("Value error, ")
    param = ".".join(place) or None
    return respond(request.url.path, RequestError(400, f"{param}: {message}" if param else message, "invalid_request", param))


def _openapi(app: FastAPI, locked: bool) -> dict[str, Any]:
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for shape in (ErrorBody, CohereErrorBody):
        found = shape.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(found.pop("$defs", {}))
        schemas[shape.__name__] = found
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for path, operations in document["paths"].items():
        name = "CohereErrorBody" if path.startswith("/v2/") else "ErrorBody"
        for operation in operations.values():
            _describe_errors(operation["responses"], path, name)
    if locked:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in OPEN_PATHS else [{"key": []}]
    app.openapi_schema = document
    return document


def _describe_errors(responses: dict[str, Any], path: str, shape: str) -> None:
    responses.pop("422", None)
    if path in OPEN_PATHS:
        return
    for status, meaning in _ERRORS.items():
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
        responses.setdefault(str(status), {"description": meaning, "content": content})
