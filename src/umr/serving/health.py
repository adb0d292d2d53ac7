"""Whether the server lives, whether it wants requests, and what it has counted."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from umr.serving.metrics import CONTENT_TYPE
from umr.serving.service import Service


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok", "draining", "broken"]


def health_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["Health"])
    unready: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "Shutting down, or broken."}}

    def state(status: Literal["ok", "draining", "broken"]) -> JSONResponse:
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @router.get("/healthz/live", response_model=Health, responses=unready)
    async def live() -> Response:
        """Whether the process works; if not, restart it."""
        return state("ok" if service.runtime.worker.alive or not service.ready else "broken")

    @router.get("/healthz/ready", response_model=Health, responses=unready)
    @router.get("/healthz", response_model=Health, responses=unready, include_in_schema=False)
    async def ready() -> Response:
        """Whether new requests are welcome; if not, send them elsewhere."""
        if not service.ready:
            return state("draining")
        return state("ok" if service.runtime.worker.alive else "broken")

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def metrics() -> Response:
        """Figures in Prometheus' text format."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return router
