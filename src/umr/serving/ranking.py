"""Jina's `/v1/rerank`, which takes texts and media on both sides; and the order of results."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from umr.serving.inputs import OneInput, Shape, ShortText
from umr.serving.service import Service, StrictRoute


class RerankRequest(Shape):
    """What to judge. `instruction` is an extension of Jina's API."""

    model: str
    query: OneInput
    documents: Annotated[list[OneInput], Field(min_length=1)]
    top_n: int | None = Field(None, ge=1, description="Results to return; all by default.")
    return_documents: bool = Field(True, description="Whether results hold the text of their document.")
    instruction: ShortText | None = Field(None, description="What to find.")


class Document(BaseModel):
    """The text of a document; empty for one without text. Media are not sent back."""

    text: str


class RerankResult(BaseModel):
    """One document and how likely it is what was asked for, from 0 to 1."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankUsage(BaseModel):
    """Tokens that the model read."""

    total_tokens: int


class RerankResponse(BaseModel):
    """Documents, best first; equal ones in the order given."""

    model: str
    usage: RerankUsage
    results: list[RerankResult]


def best_first(scores_N: np.ndarray, top: int | None) -> list[tuple[int, float]]:
    """Places and scores of the best, ties in input order; all when `top` is None."""
    order = np.argsort(-scores_N, kind="stable")[:top]
    return [(int(index), float(scores_N[index])) for index in order]


def rerank_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/v1", tags=["Jina"], route_class=StrictRoute)

    @router.post("/rerank", response_model=RerankResponse, response_model_exclude_none=True)
    async def rerank(request: Request, asked: RerankRequest) -> dict[str, Any]:
        """Order documents by how well they answer a query."""
        model = service.reranker(asked.model)
        async with service.items(request, [asked.query, *asked.documents]) as (query, *documents):
            done = await model.rerank(query, asked.instruction, documents)
            texts = [document.text for document in documents]
        results: list[dict[str, Any]] = []
        for index, score in best_first(done.values_ND, asked.top_n):
            shown = {"document": {"text": texts[index]}} if asked.return_documents else {}
            results.append({"index": index, "relevance_score": score, **shown})
        return {"model": asked.model, "usage": {"total_tokens": done.tokens}, "results": results}

    return router
