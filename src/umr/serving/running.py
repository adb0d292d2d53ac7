"""Running a server: the socket is bound, slow clients are cut off, and a signal ends it gently."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from umr.errors import RecipeError
from umr.serving.app import create_app
from umr.serving.service import Service


def leave_a_core() -> None:
    """Leave a core to preparing: with one thread too many, torch's own wait for each other."""
    import torch

    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - 1)))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `RecipeError` when the address is not to be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    except (OSError, OverflowError) as error:
        raise RecipeError(f"cannot listen on {host}, port {port} ({getattr(error, 'strerror', None) or error})") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server(uvicorn.Server):
    """Answers until a signal comes. Then it says that it is not ready, finishes what was begun, and ends; a second signal ends it at once.

    Args:
        service: what answers.
        drain_seconds: for which new requests are still answered after the signal, while load balancers look elsewhere.
    """

    def __init__(self, service: Service, drain_seconds: float = 0.0) -> None:
        limits = service.settings.limits
        config = uvicorn.Config(
            create_app(service),
            http=_protocol(limits.header_seconds),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
            h11_max_incomplete_event_size=limits.header_bytes,
            timeout_graceful_shutdown=int(limits.request_seconds) + 1,
        )
        super().__init__(config)
        self._service, self._drain_seconds = service, drain_seconds
        self._ends: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        if self._ends is not None:
            self.should_exit = self.force_exit = True
            return
        self._service.ready = False
        self._ends = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to end."""
        if self._ends is not None and time.monotonic() >= self._ends:
            self.should_exit = True
        return await super().on_tick(counter)


def _protocol(seconds: float) -> type[H11Protocol]:
    """Uvicorn's HTTP with a limit on how long the head of a request may take, which uvicorn lacks."""

    class Timed(H11Protocol):
        _deadline: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """Run the clock while a head is incomplete; every byte of it counts against the same deadline."""
            import h11

            if self.conn.their_state is not h11.IDLE or self.conn.our_state is not h11.IDLE:
                self._unwatch()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(seconds, self._close)

        def _unwatch(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _close(self) -> None:
            self._deadline = None
            self.transport.close()

    return Timed
