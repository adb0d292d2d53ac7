"""One server and its client for all tests here."""

import logging
from collections.abc import Iterator

import httpx
import pytest

import tiny
from umr.items import Item
from umr.search.collection import Collection
from umr.serving.settings import ServerSettings
from unit.serving.live_server import KEY, Running, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A locked server whose embedder has shorter vectors of 16 components, with a collection of three items."""
    home = tmp_path_factory.mktemp("collections")
    with Collection.create(home / "things", tiny.embedder("qwen3-vl"), model_name="tiny") as things:
        things.add([Item.of(text=text, id=text[:4]) for text in tiny.TEXTS[:3]])
    with running(ServerSettings(keys=(KEY,)), shorter=(16,), home=home) as found:
        yield found


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as found:
        yield found


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Undo what `logs.configure` does to the process: its stream is that of one test."""
    loggers = [logging.getLogger(name) for name in ("umr.serving", "uvicorn", "uvicorn.access")]
    before = [(one.handlers, one.propagate, one.level, one.disabled) for one in loggers]
    yield
    for one, (handlers, propagate, level, disabled) in zip(loggers, before, strict=True):
        one.handlers, one.propagate, one.disabled = handlers, propagate, disabled
        one.setLevel(level)
