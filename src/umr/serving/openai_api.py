"""OpenAI's API: `/v1/embeddings` and `/v1/models`, with images, videos, sides and instructions as extensions."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from umr.items import Side
from umr.serving.errors import RequestError
from umr.serving.inputs import Inputs, Shape, ShortText, as_list
from umr.serving.quantising import as_base64
from umr.serving.service import Service, StrictRoute

SIDES: dict[str, Side] = {"query": "query", "document": "candidate"}


class EmbeddingsRequest(Shape):
    """What to embed. `input_type` and `instruction`, and inputs that are objects, are extensions of OpenAI's API."""

    model: str
    input: Inputs
    dimensions: int | None = Field(None, ge=1, description="Length of the vectors; one that the model has, see /v1/models.")
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = Field(None, description="Accepted for compatibility; has no effect.")
    input_type: Literal["query", "document"] = Field("document", description="What is searched with, or what is found.")
    instruction: ShortText | None = Field(None, description="What to find; for queries alone.")


class Embedding(BaseModel):
    """One vector: numbers, or base64 of float32 in little-endian order."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that the model read; estimated where the model hides them."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors of unit length in the inputs' order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """A model; what is beyond `owned_by` is an extension of OpenAI's API."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: Literal["embedder", "reranker"]
    fingerprint: str
    dimensions: Annotated[list[int], Field(description="Lengths of vectors that it has; the last is its own.")]


class ModelsResponse(BaseModel):
    """Models."""

    object: Literal["list"]
    data: list[Model]


def openai_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=StrictRoute)

    @router.post("/embeddings", response_model=EmbeddingsResponse)
    async def embeddings(request: Request, asked: EmbeddingsRequest) -> Response:
        """Embed texts, images and videos."""
        model = service.embedder(asked.model)
        if asked.instruction and asked.input_type != "query":
            raise RequestError(400, 'instructions belong to queries; add "input_type": "query"', "invalid_input", "instruction")
        async with service.items(request, as_list(asked.input)) as items:
            done = await model.embed(items, SIDES[asked.input_type], asked.instruction, asked.dimensions)
        return await service.json(partial(_embeddings, done.values_ND, done.tokens, asked))

    @router.get("/models", response_model=ModelsResponse)
    async def models() -> dict[str, Any]:
        """The models of this server."""
        return {"object": "list", "data": [*_models(service)]}

    @router.get("/models/{model:path}", response_model=Model)
    async def model(model: str) -> dict[str, Any]:
        """One model."""
        for found in _models(service):
            if found["id"] == model:
                return found
        raise RequestError(404, f"this server has no model {model!r}", "model_not_found", "model")

    return router


def _embeddings(vectors_ND: np.ndarray, tokens: int, asked: EmbeddingsRequest) -> dict[str, Any]:
    vectors = vectors_ND.tolist() if asked.encoding_format == "float" else as_base64(vectors_ND)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _models(service: Service) -> list[dict[str, Any]]:
    shared = {"object": "model", "created": 0, "owned_by": "umr"}
    embedders = [
        {**shared, "id": name, "kind": "embedder", "fingerprint": model.fingerprint, "dimensions": list(model.lengths)}
        for name, model in service.embedders.items()
    ]
    rerankers = [
        {**shared, "id": name, "kind": "reranker", "fingerprint": model.fingerprint, "dimensions": []}
        for name, model in service.rerankers.items()
    ]
    return embedders + rerankers
