"""How much may be under way at once: a queue without bound only turns overload into timeouts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from umr.serving.errors import RequestError
from umr.serving.settings import Limits

LONGEST_WAIT = 60
"""Seconds in `Retry-After` at most."""


class Gate:
    """Lets requests in while there is room. For one event loop; not for several threads.

    Args:
        limits: how much room there is.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.items = self.bytes = 0
        self._rate = 0.0

    @contextmanager
    def enter(self, items: int) -> Iterator[None]:
        """Hold room for items.

        Raises:
            RequestError: 400 for more than one request may have, 429 when there is no room now.
        """
        if items > self._limits.items:
            raise RequestError(400, f"{items} items in one request; at most {self._limits.items} are allowed", "too_many_items")
        if self.items + items > self._limits.queued_items:
            raise self._full("items")
        self.items += items
        started = time.monotonic()
        try:
            yield
            seconds = max(time.monotonic() - started, 1e-3)
            self._rate += 0.1 * (self.items / seconds - self._rate)  # all that is under way is served in about this time
        finally:
            self.items -= items

    def take(self, size: int) -> None:
        """Hold room for bytes of a body. Raises `RequestError` 429 when there is none now."""
        if self.bytes + size > self._limits.queued_bytes:
            raise self._full("bytes")
        self.bytes += size

    def give_back(self, size: int) -> None:
        """Free what `take` held."""
        self.bytes -= size

    def _full(self, what: str) -> RequestError:
        wait = self.items / self._rate if self._rate else 1.0
        return RequestError(
            429, f"the queue is full ({what}); try again later", "queue_full", retry_after=int(min(max(wait, 1), LONGEST_WAIT))
        )
