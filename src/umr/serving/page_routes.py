"""The page: its files, which any browser runs as they are, and the routes that were made for it."""

from __future__ import annotations

from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from umr.serving.errors import RequestError
from umr.serving.judgements_api import judgements_router
from umr.serving.pictures_api import pictures_router
from umr.serving.service import Service

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {entry.name: entry.read_bytes() for entry in files("umr.serving").joinpath("page").iterdir() if Path(entry.name).suffix in _TYPES}
PAGE_PATHS = frozenset({"/", *(f"/page/{name}" for name in _FILES)})
"""Answered without a key: they hold nothing of any collection, and the page itself asks for the key."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Only what this server sends may run or be loaded, no text may become markup, and no other page may frame this one."""
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter()
    router.include_router(judgements_router(service))
    router.include_router(pictures_router(service))

    @router.get("/", include_in_schema=False)
    @router.get("/page/{name}", include_in_schema=False)
    async def page(request: Request, name: str = "index.html") -> Response:
        """The page, or a file of it."""
        if name not in _FILES:
            raise RequestError(404, f"the page has no file {name!r}", "not_found")
        content = _FILES[name]
        headers = {**_HEADERS, "ETag": f'"{blake2b(content, digest_size=12).hexdigest()}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_TYPES[Path(name).suffix])

    return router
