"""Cohere's API, second version: `/v2/embed` and `/v2/rerank`, with instructions and multimodal documents as extensions."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from umr.items import Side
from umr.serving.errors import RequestError
from umr.serving.inputs import AnyInput, ImageSource, ItemInput, OneInput, OrderedInput, Shape, ShortText
from umr.serving.quantising import as_type
from umr.serving.ranking import best_first
from umr.serving.service import Service, StrictRoute

SIDES: dict[str, Side] = {
    "search_query": "query",
    "search_document": "candidate",
    "classification": "candidate",
    "clustering": "candidate",
    "image": "candidate",
}
EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
_IGNORED = "Accepted for compatibility; has no effect."


class EmbedRequest(Shape):
    """What to embed: one of `texts`, `images` and `inputs`. `instruction` is an extension of Cohere's API."""

    model: str
    input_type: Literal["search_query", "search_document", "classification", "clustering", "image"] = Field(
        description="A query, or what is found: all but `search_query` mean the same."
    )
    texts: Annotated[list[ShortText], Field(min_length=1)] | None = None
    images: Annotated[list[ImageSource], Field(min_length=1)] | None = None
    inputs: Annotated[list[OrderedInput], Field(min_length=1)] | None = None
    embedding_types: tuple[EmbeddingType, ...] = Field(("float",), min_length=1)
    output_dimension: int | None = Field(None, ge=1, description="Length of the vectors; one that the model has, see /v1/models.")
    truncate: Literal["END"] = Field("END", description="Texts that are too long lose their end; nothing else is offered.")
    priority: int | None = Field(None, description=_IGNORED)
    instruction: ShortText | None = Field(None, description="What to find; for queries alone.")

    @model_validator(mode="after")
    def _one_kind(self) -> EmbedRequest:
        if sum(one is not None for one in (self.texts, self.images, self.inputs)) != 1:
            raise ValueError("give exactly one of texts, images and inputs")
        return self

    def all_inputs(self) -> list[AnyInput]:
        """What to embed, in one list."""
        if self.images is not None:
            return [ItemInput(image=image) for image in self.images]
        return [*(self.texts if self.texts is not None else self.inputs or [])]


class EmbeddingsByType(BaseModel):
    """Vectors in the inputs' order, in each of the types asked for."""

    model_config = ConfigDict(populate_by_name=True)

    float_: list[list[float]] | None = Field(None, alias="float")
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = None


class ApiVersion(BaseModel):
    """Of the API that answers."""

    version: Literal["2"]


class Tokens(BaseModel):
    """Tokens that the model read."""

    input_tokens: int


class Meta(BaseModel):
    """What is said about an answer."""

    api_version: ApiVersion
    tokens: Tokens


class EmbedResponse(BaseModel):
    """Vectors."""

    response_type: Literal["embeddings_by_type"]
    id: str
    embeddings: EmbeddingsByType
    texts: list[str]
    meta: Meta


class CohereRerankRequest(Shape):
    """What to judge. `instruction`, and queries and documents that are objects, are extensions of Cohere's API."""

    model: str
    query: OneInput
    documents: Annotated[list[OneInput], Field(min_length=1)]
    top_n: int | None = Field(None, ge=1)
    priority: int | None = Field(None, description=_IGNORED)
    instruction: ShortText | None = None


class CohereResult(BaseModel):
    """One document and how likely it is what was asked for."""

    index: int
    relevance_score: float


class CohereRerankResponse(BaseModel):
    """Documents, best first."""

    id: str
    results: list[CohereResult]
    meta: Meta


def cohere_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v2", tags=["Cohere"], route_class=StrictRoute)

    @router.post("/embed", response_model=EmbedResponse, response_model_exclude_none=True)
    async def embed(request: Request, asked: EmbedRequest) -> Response:
        """Embed texts and images."""
        model = service.embedder(asked.model)
        if asked.instruction and asked.input_type != "search_query":
            raise RequestError(400, 'instructions belong to queries; set "input_type": "search_query"', param="instruction")
        async with service.items(request, asked.all_inputs()) as items:
            done = await model.embed(items, SIDES[asked.input_type], asked.instruction, asked.output_dimension)
        return await service.json(partial(_embeddings, done.values_ND, done.tokens, asked))

    @router.post("/rerank", response_model=CohereRerankResponse)
    async def rerank(request: Request, asked: CohereRerankRequest) -> dict[str, Any]:
        """Order documents by how well they answer a query."""
        model = service.reranker(asked.model)
        async with service.items(request, [asked.query, *asked.documents]) as (query, *documents):
            done = await model.rerank(query, asked.instruction, documents)
        results = [{"index": index, "relevance_score": score} for index, score in best_first(done.values_ND, asked.top_n)]
        return {"id": str(uuid.uuid4()), "results": results, "meta": _meta(done.tokens)}

    return router


def _embeddings(vectors_ND: np.ndarray, tokens: int, asked: EmbedRequest) -> dict[str, Any]:
    return {
        "response_type": "embeddings_by_type",
        "id": str(uuid.uuid4()),
        "embeddings": {kind: as_type(vectors_ND, kind) for kind in dict.fromkeys(asked.embedding_types)},
        "texts": asked.texts or [],
        "meta": _meta(tokens),
    }


def _meta(tokens: int) -> dict[str, Any]:
    return {"api_version": {"version": "2"}, "tokens": {"input_tokens": tokens}}
