"""`/v1/collections/NAME/judgements`: what people say of hits, for evaluation and training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from umr.items import Item
from umr.search.collection import Collection
from umr.search.judgements import Judgements
from umr.serving.collections import told
from umr.serving.errors import RequestError
from umr.serving.inputs import OneInput, Shape, ShortText
from umr.serving.service import Service, StrictRoute


class JudgementRequest(Shape):
    """A query, and what somebody says of a hit of it. Without `id` nothing is said, and what was said before is only read."""

    query: OneInput | None = None
    like: str | None = Field(None, description="In place of a query: the item whose nearest were looked for.")
    instruction: ShortText | None = Field(None, description="Default: the collection's; an empty text for none.")
    id: str | None = Field(None, description="Of the item that is judged.")
    right: bool | None = Field(None, description="Whether it answers the query; null takes back what was said.")


class JudgementResponse(BaseModel):
    """What was kept."""

    id: str | None
    right: bool | None
    marks: dict[str, bool] = Field(description="All that stands for this query: right or wrong by item.")


def judgements_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/v1/collections", tags=["Collections"], route_class=StrictRoute)

    @router.post("/{name}/judgements", response_model=JudgementResponse)
    async def judge(request: Request, name: str, asked: JudgementRequest) -> dict[str, Any]:
        """Keep what somebody says of a hit, or read what was said of a query's hits."""
        _check(asked)
        collection = service.collection(name) if asked.id is None else service.all_collections.changeable(name)
        async with service.items(request, [] if asked.query is None else [asked.query]) as items:
            query = partial(collection.item, asked.like) if asked.like is not None else partial(items.__getitem__, 0)
            with told(collection):
                marks = await service.runtime.waiting(partial(_judged, collection, query, asked))
        return {"id": asked.id, "right": asked.right, "marks": marks}

    return router


def _check(asked: JudgementRequest) -> None:
    if (asked.query is None) == (asked.like is None):
        raise RequestError(400, "give either query or like", "invalid_request", "query")
    if (asked.id is None) == ("right" in asked.model_fields_set):
        raise RequestError(400, "id and right go together: true, false, or null to take back what was said", "invalid_request", "right")


def _judged(collection: Collection, query: Callable[[], Item], asked: JudgementRequest) -> dict[str, bool]:
    item = query()
    if asked.id is not None:
        collection.judge(item, asked.id, asked.right, asked.instruction)
    instruction = collection.settings.instruction if asked.instruction is None else asked.instruction
    return Judgements(collection.folder).of(item, instruction or None)
