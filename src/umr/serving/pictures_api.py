"""Items as pictures that every browser shows.

Pages of PDFs are drawn, formats that few browsers know are converted, and of clips the frames are laid out side by side: what the model
has seen of them, also where a browser cannot play the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response

from umr.errors import DataError
from umr.items import Image, Text
from umr.search.collection import Collection
from umr.search.reopening import reopen
from umr.search.rows import Row
from umr.serving.collections import told
from umr.serving.errors import RequestError
from umr.serving.service import Service, StrictRoute

if TYPE_CHECKING:
    import PIL.Image

SIDE = 2048
"""Longest side of a picture that has to be made."""
FRAME_SIDE = 480
FRAMES_A_ROW = (4, 3, 5)
_SHOWN = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png", b"GIF87a": "image/gif", b"GIF89a": "image/gif"}
"""First bytes of files that every browser shows; they are sent as they are."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=300",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"content": {kind: _BINARY for kind in sorted({"image/webp", *_SHOWN.values()})}}}


def pictures_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/v1/collections/{name}", tags=["Collections"], route_class=StrictRoute)

    @router.get("/picture", response_class=Response, responses=_ANSWERS)
    async def picture(name: str, id: Annotated[str, Query(description="Of the item.")]) -> Response:
        """The image, the page, or the frames of an item, in a format that every browser shows."""
        collection = service.collection(name)
        rows = await service.runtime.waiting(partial(collection.get, [id]))
        if not rows:
            raise RequestError(404, f"the collection {name} has no item {id!r}", "item_not_found", "id")
        with told(collection):
            return await service.runtime.waiting(partial(_picture, collection, rows[0]))

    return router


def _picture(collection: Collection, row: Row) -> Response:
    path = collection.media(row)
    if path is None or not path.is_file():
        raise RequestError(404, "this item has no picture, or its file is gone", "no_picture", "id")
    if row.page is None and (kind := _kind(path)) is not None:
        return FileResponse(path, media_type=kind, headers=_HEADERS)
    seen = next(part for part in reopen(row, path).parts if not isinstance(part, Text))
    image = seen.open() if isinstance(seen, Image) else _side_by_side(seen.frames().images)
    return Response(_webp(image), media_type="image/webp", headers=_HEADERS)


def _kind(path: Path) -> str | None:
    """The type of a file that every browser shows; None for another."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read ({error.strerror})") from error
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _SHOWN.items() if head.startswith(start)), None)


def _side_by_side(frames: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    import PIL.Image

    width, height = frames[0].size
    scale = min(1.0, FRAME_SIDE / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    columns = min(FRAMES_A_ROW, key=lambda number: -len(frames) % number) if len(frames) > max(FRAMES_A_ROW) else len(frames)
    sheet = PIL.Image.new("RGB", (columns * width, -(-len(frames) // columns) * height), "white")
    for number, frame in enumerate(frames):
        sheet.paste(frame.resize((width, height)), (number % columns * width, number // columns * height))
    return sheet


def _webp(image: PIL.Image.Image) -> bytes:
    if max(image.size) > SIDE:
        image = image.copy()
        image.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    image.save(buffer, format="webp", quality=90, method=2)
    return buffer.getvalue()
