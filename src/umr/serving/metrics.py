"""Figures for Prometheus, each server its own registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from umr.serving.worker import Batch

__all__ = ["CONTENT_TYPE", "Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """What a server counts. Labels are routes, never paths, so that callers cannot multiply them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("umr_requests", "Answered requests.", ["method", "route", "status"], **kept)
        self.seconds = Histogram("umr_request_seconds", "Until the answer began.", ["route"], buckets=_SECONDS, **kept)
        self.items = Counter("umr_items", "Items in requests that were let in.", ["route"], **kept)
        self.batches = Histogram("umr_batch_rows", "Rows computed at once.", ["model"], buckets=_ROWS, **kept)
        self.batch_requests = Counter("umr_batch_requests", "Requests in a batch, over all batches.", ["model"], **kept)
        self.forward = Histogram("umr_batch_seconds", "Computing one batch.", ["model"], buckets=_SECONDS, **kept)
        self.refused = Counter("umr_refused", "Requests that were refused before any work.", ["reason"], **kept)
        self.queued_items = Gauge("umr_queued_items", "Items of requests that are being answered.", **kept)
        self.queued_bytes = Gauge("umr_queued_bytes", "Bodies of requests that are being answered.", **kept)

    def observe_batch(self, batch: Batch) -> None:
        """Count a batch."""
        self.batches.labels(batch.model).observe(batch.rows)
        self.batch_requests.labels(batch.model).inc(batch.requests)
        self.forward.labels(batch.model).observe(batch.seconds)

    def watch_queue(self, items: Callable[[], float], size: Callable[[], float]) -> None:
        """Read the gauges of the queue from where it is kept."""
        self.queued_items.set_function(items)
        self.queued_bytes.set_function(size)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)
