"""`/v1/collections`: what there is, new ones, adding and deleting items, and the files of items, by their ids alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field

from umr.items import Item
from umr.search.collection import Collection
from umr.search.metadata import decode
from umr.search.rows import Row
from umr.serving.collections import NAME, Collections, told
from umr.serving.errors import RequestError
from umr.serving.inputs import ItemInput, Shape, ShortText
from umr.serving.search_api import ItemBody, item_path
from umr.serving.service import Service, StrictRoute

_KINDS = {
    **{f".{kind}": f"image/{kind}" for kind in ("png", "webp", "gif", "tiff", "bmp", "jpeg", "heic", "heif")},
    **{".jpg": "image/jpeg", ".tif": "image/tiff", ".pdf": "application/pdf"},
    **{".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".mkv": "video/x-matroska"},
}
"""What a browser may show of a file by the ending of its name; everything else it may only save."""
LOOKED_AT = 2000
"""Rows that are read to learn which metadata fields there are."""
_SAFE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=300"}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
_PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}}}


ItemId = Annotated[str, Query(description="Of the item.")]


class CollectionBody(BaseModel):
    """A collection in numbers."""

    name: str
    rows: int
    modalities: dict[str, int]
    files: dict[str, int] = Field(description="Files that were looked at, by what became of them.")
    fields: list[str] = Field(description=f"Metadata fields of the first {LOOKED_AT} rows.")
    version: str = Field(description="Changes with every change.")
    model: str
    fingerprint: str
    dimension: int
    created: str


class CollectionsBody(BaseModel):
    """Collections, and what can order their hits anew."""

    data: list[CollectionBody]
    rerankers: list[str] = Field(description="Names of the rerankers of this server.")


class CreateRequest(Shape):
    """A new, empty collection."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    model: str = Field(description="Name of an embedder of this server.")
    instruction: ShortText | None = Field(None, description="What queries are asked with where a search names none.")


class NewItem(ItemInput):
    """An item to add. One of an id that is there already is replaced."""

    id: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(None, description="Default: a hash of the content.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Texts, numbers, true/false, lists of texts.")


class AddRequest(Shape):
    """Items to add."""

    items: Annotated[list[NewItem], Field(min_length=1)]


class IdsBody(BaseModel):
    """Ids in the order of the items."""

    ids: list[str]


class DeleteRequest(Shape):
    """Items to delete."""

    ids: Annotated[list[str], Field(min_length=1, max_length=10_000)]


class DeletedBody(BaseModel):
    """How many there were."""

    deleted: int


def collections_router(service: Service) -> APIRouter:
    """The routes about collections."""
    collections = service.all_collections
    router = APIRouter(prefix="/v1/collections", tags=["Collections"], route_class=StrictRoute)

    @router.get("", response_model=CollectionsBody)
    async def every() -> dict[str, Any]:
        """The collections of this server."""
        data = await service.runtime.waiting(lambda: [_about(collections, name) for name in collections.names])
        return {"data": data, "rerankers": sorted(service.rerankers)}

    @router.post("", response_model=CollectionBody, status_code=201)
    async def create(asked: CreateRequest) -> dict[str, Any]:
        """Make an empty collection."""
        model = service.embedder(asked.model)
        await service.runtime.waiting(partial(collections.create, asked.name, model, model.path, asked.instruction))
        return await service.runtime.waiting(partial(_about, collections, asked.name))

    @router.get("/{name}", response_model=CollectionBody)
    async def one(name: str) -> dict[str, Any]:
        """A collection in numbers."""
        collections.get(name)
        return await service.runtime.waiting(partial(_about, collections, name))

    @router.post("/{name}/items", response_model=IdsBody, status_code=201)
    async def add(request: Request, name: str, asked: AddRequest) -> dict[str, Any]:
        """Embed items and keep them; when this answers they are on disk."""
        collection = collections.changeable(name)
        async with service.items(request, list(asked.items)) as items:
            named = [Item(item.parts, one.id) for item, one in zip(items, asked.items, strict=True)]
            with told(collection):
                ids = await service.runtime.waiting(partial(collection.add, named, [one.metadata for one in asked.items]))
        return {"ids": ids}

    @router.post("/{name}/items/delete", response_model=DeletedBody)
    async def delete(name: str, asked: DeleteRequest) -> dict[str, Any]:
        """Delete items; ids that are not there are passed over."""
        collection = collections.changeable(name)
        with told(collection):
            return {"deleted": await service.runtime.waiting(partial(collection.delete, list(dict.fromkeys(asked.ids))))}

    return router


def items_router(service: Service) -> APIRouter:
    """The routes about single items."""
    router = APIRouter(prefix="/v1/collections/{name}", tags=["Collections"], route_class=StrictRoute)

    async def find(name: str, id: str) -> tuple[Collection, Row]:
        collection = service.collection(name)
        rows = await service.runtime.waiting(partial(collection.get, [id]))
        if not rows:
            raise RequestError(404, f"the collection {name} has no item {id!r}", "item_not_found", "id")
        return collection, rows[0]

    @router.get("/thumbnail", response_class=Response, responses=_PICTURE)
    async def thumbnail(name: str, id: ItemId) -> Response:
        """A small picture of an item."""
        _, row = await find(name, id)
        if not row.thumbnail:
            raise RequestError(404, "this item has no thumbnail", "no_thumbnail", "id")
        return Response(row.thumbnail, media_type="image/webp", headers=_SAFE)

    @router.get("/media", response_class=Response, responses=_FILE)
    async def media(name: str, id: ItemId) -> Response:
        """The picture, PDF or video of an item; parts of it where the header `Range` asks for them."""
        collection, row = await find(name, id)
        path = await service.runtime.waiting(partial(_file, collection, row))
        if path is None:
            raise RequestError(404, "this item has no file, or it is gone", "no_media", "id")
        kind = _KINDS.get(path.suffix.lower())
        headers = dict(_SAFE)
        if kind != "application/pdf":  # browsers show no PDF in a sandbox
            headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        where = "inline" if kind else "attachment"
        return FileResponse(
            path, media_type=kind or "application/octet-stream", headers=headers, filename=path.name, content_disposition_type=where
        )

    @router.get("/item", response_model=ItemBody)
    async def item(name: str, id: ItemId) -> dict[str, Any]:
        """An item without its vector."""
        collection, row = await find(name, id)
        about = {field: getattr(row, field) for field in ("id", "source", "modality", "text", "page", "start", "end")}
        thumbnail = item_path(name, "thumbnail", row.id) if row.thumbnail else None
        media = item_path(name, "media", row.id) if collection.media(row) is not None else None
        return {**about, "metadata": dict(row.metadata), "thumbnail": thumbnail, "media": media}

    return router


def _about(collections: Collections, name: str) -> dict[str, Any]:
    collection = collections.get(name)
    stats = collection.stats().to_json()
    wanted = ("rows", "modalities", "files", "version", "fingerprint", "dimension", "created")
    fields = _fields(collection)
    return {"name": name, "model": collections.model_of(name), "fields": fields, **{field: stats[field] for field in wanted}}


def _fields(collection: Collection) -> list[str]:
    found: set[str] = set()
    seen = 0
    for batch in collection.table.scan(["metadata"]):
        for text in set(batch.column("metadata").to_pylist()):
            found |= decode(text).keys()
        seen += batch.num_rows
        if seen >= LOOKED_AT:
            break
    return sorted(found)


def _file(collection: Collection, row: Row) -> Path | None:
    path = collection.media(row)
    return path if path is not None and path.is_file() else None
