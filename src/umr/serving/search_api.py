"""`/v1/search`: everything that `Collection.search` can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from umr.items import Item
from umr.search.asking import Part
from umr.search.hits import Hit, Results
from umr.serving.collections import told
from umr.serving.errors import RequestError
from umr.serving.inputs import MOST_IMAGES, AnyInput, OneInput, Shape, ShortText
from umr.serving.service import Service, StrictRoute

_FOR_QUERIES = ("query", "minus", "parts", "instruction", "mode", "depth", "words_weight", "rerank")


class PartInput(Shape):
    """A part of a question: embedded by itself, its vector added with this weight."""

    input: OneInput
    weight: float = Field(1.0, description="Not zero; below zero for what is to be avoided.")


class RerankSettings(Shape):
    """How the first hits are to be ordered anew."""

    model: str = Field(description="Name of a reranker of this server.")
    depth: int | None = Field(None, ge=1, le=1000, description="Hits that are ordered anew.")
    seconds: float | None = Field(None, gt=0, description="Time after which it stops.")
    weight: float | None = Field(None, ge=0, description="Of P(Yes) beside the cosine.")


class SearchRequest(Shape):
    """What to search for, and how. See the guide to searching for what each setting does."""

    collection: str
    query: OneInput | None = Field(None, description="A text, or text and media together, which the model reads as one.")
    minus: OneInput | None = Field(None, description="What to avoid.")
    parts: Annotated[list[PartInput], Field(max_length=MOST_IMAGES)] | None = Field(None, description="Further things, with weights.")
    like: str | None = Field(None, description="Id of an item whose nearest are wanted, in place of a query.")
    instruction: ShortText | None = Field(None, description="What to find. Default: the collection's; an empty text for none.")
    where: dict[str, Any] | list[ShortText] | ShortText | None = Field(None, examples=[{"year": {"gte": 2020}}])
    modalities: Annotated[list[str], Field(min_length=1)] | None = Field(None, examples=[["image", "image,text"]])
    k: int = Field(10, ge=1, le=1000)
    offset: int = Field(0, ge=0)
    mode: Literal["vector", "words", "hybrid"] | None = Field(None, description="Default: vector.")
    depth: int | None = Field(None, ge=1)
    words_weight: float | None = Field(None, gt=0)
    rerank: RerankSettings | None = None
    group_by: str | None = Field(None, description='"source", or a metadata field.')
    per_group: int | None = Field(None, ge=1)

    def given(self, *names: str) -> dict[str, Any]:
        """Those of some settings that were given."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class ItemBody(BaseModel):
    """An item of a collection."""

    id: str
    source: str
    modality: str
    text: str
    page: int | None
    start: float | None
    end: float | None
    metadata: dict[str, Any]
    thumbnail: str | None = Field(description="Path on this server.")
    media: str | None = Field(description="Path on this server.")


class HitBody(ItemBody):
    """One thing that was found."""

    rank: int = Field(description="From 1.")
    score: float
    stage: str = Field(description="What decided its place: cosine, calibrated, words, fused or rerank.")
    scores: dict[str, float] = Field(description="At every stage that it went through.")


class SearchResponse(BaseModel):
    """Hits, best first."""

    collection: str
    hits: list[HitBody]
    order: str = Field(description="What the order is, in words.")
    reranked: int
    notes: list[str]
    seconds: dict[str, float] = Field(description="By stage.")


def search_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/v1", tags=["Collections"], route_class=StrictRoute)

    @router.post("/search", response_model=SearchResponse)
    async def search(request: Request, asked: SearchRequest) -> dict[str, Any]:
        """Find things in a collection."""
        collection = service.collection(asked.collection)
        rest = asked.given("where", "modalities", "group_by", "per_group") | {"k": asked.k, "offset": asked.offset}
        if asked.like is not None:
            if idle := [*asked.given(*_FOR_QUERIES)]:
                raise RequestError(400, f"{idle[0]} has no effect beside like; leave it out", "invalid_request", idle[0])
            with service.gate.enter(1), told(collection):
                found = await service.runtime.waiting(partial(collection.more_like, asked.like, **rest))
            return _answer(asked.collection, found)
        rest |= asked.given("instruction", "mode", "depth", "words_weight")
        if asked.rerank is not None:
            rest |= {f"rerank_{name}": value for name, value in asked.rerank if name != "model"}
            rest["reranker"] = service.reranker(asked.rerank.model)
        async with service.items(request, _inputs(asked)) as items:
            with told(collection):
                found = await service.runtime.waiting(partial(collection.search, **_question(asked, items), **rest))
        return _answer(asked.collection, found)

    return router


def _inputs(asked: SearchRequest) -> list[AnyInput]:
    alone = [one for one in (asked.query, asked.minus) if one is not None]
    return [*alone, *(part.input for part in asked.parts or ())]


def _question(asked: SearchRequest, items: Sequence[Item]) -> dict[str, Any]:
    left = iter(items)
    query = next(left) if asked.query is not None else None
    minus = next(left) if asked.minus is not None else None
    parts = [Part(item, part.weight) for item, part in zip(left, asked.parts or (), strict=True)]
    return {"query": query, "minus": minus, "parts": parts}


def _answer(name: str, found: Results) -> dict[str, Any]:
    return {
        "collection": name,
        "hits": [_hit(name, hit) for hit in found],
        "order": found.order,
        "reranked": found.reranked,
        "notes": list(found.notes),
        "seconds": dict(found.seconds),
    }


def _hit(name: str, hit: Hit) -> dict[str, Any]:
    scores: Mapping[str, float] = hit.scores
    about = {field: getattr(hit, field) for field in ("id", "rank", "score", "stage", "source", "modality", "text", "page", "start", "end")}
    thumbnail = item_path(name, "thumbnail", hit.id) if hit.thumbnail else None
    media = item_path(name, "media", hit.id) if hit.media is not None else None
    return {**about, "scores": dict(scores), "metadata": dict(hit.metadata), "thumbnail": thumbnail, "media": media}


def item_path(name: str, what: str, id: str) -> str:
    """Where something of an item is on this server. Ids hold slashes and dots, which not everything between leaves alone in a path."""
    return f"/v1/collections/{name}/{what}?id={quote(id, safe='')}"
