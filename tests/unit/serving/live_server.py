"""Real servers on loopback ports, with tiny models."""

import asyncio
import functools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

import tiny
from umr.models.embedder import Embedder
from umr.models.reranker import Reranker
from umr.serving.collections import Collections, folders_of
from umr.serving.loading import assemble
from umr.serving.running import Server
from umr.serving.service import Service
from umr.serving.settings import ServerSettings

KEY = "a-key-for-the-tests"
bare = httpx.Client(trust_env=False, verify=False, timeout=30)
"""A client without a key; one for all, since making one reads the system's certificates."""


@dataclass
class Running:
    """A server that answers."""

    url: str
    port: int
    service: Service
    server: Server
    embedder: Embedder
    reranker: Reranker

    def client(self, key: str | None = KEY) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=False)


@contextmanager
def running(
    settings: ServerSettings, shorter: tuple[int, ...] = (), home: Path | None = None, read_only: bool = False
) -> Iterator[Running]:
    """A server, with the collections below `home` where that is given."""
    embedder, reranker = tiny.embedder("qwen3-vl"), reranker_of()
    service = assemble(settings, {"tiny": embedder}, {"judge": reranker}, shorter, {"tiny": str(tiny.checkpoint("qwen3-vl"))})
    if home is not None:
        service.collections = Collections(service.embedders, home, read_only)
        for name, folder in folders_of([], home).items():
            service.collections.open(folder, name)
    server = Server(service)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    port = listening.getsockname()[1]
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Running(f"http://127.0.0.1:{port}", port, service, server, embedder, reranker)
    finally:
        server.handle_exit(15, None)
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"


@functools.cache
def reranker_of() -> Reranker:
    return Reranker.load(tiny.checkpoint("qwen3-vl"), template="short", device="cpu")
