"""What surrounds every request: who may ask, how large and how slow a request may be, how long it may take, and one line in the log.

A plain ASGI middleware. It reads the body before anything else sees the request, cancels the work when the client goes away or
time is up, and turns whatever goes wrong into the error shape of the API that was called.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from umr.errors import DataError, MediaError, RecipeError, RenderError
from umr.serving.errors import CLOSED_BY_CLIENT, RequestError, place, respond
from umr.serving.gate import Gate
from umr.serving.keys import Keys
from umr.serving.logs import log_request
from umr.serving.metrics import Metrics
from umr.serving.settings import Limits, ServerSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/healthz", "/healthz/live", "/healthz/ready")
"""Answered without a key, whatever the name in the header `Host`: who watches a server seldom knows its name."""
RECORD = "umr.record"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass
class Record:
    """What is known of one request; handlers find it under `RECORD` in the scope and add to it.

    Attributes:
        id: the caller's `X-Request-ID` where it is harmless, else a new one.
        items: that were asked about.
        status: of the answer; None until it begins.
        error: kind and place of a mistake of ours.
    """

    id: str
    items: int = 0
    status: int | None = None
    error: str | None = None
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None
    refused: str | None = None
    body: int = 0
    complete: bool = False


class Guard:
    """The middleware.

    Args:
        app: what answers.
        settings: of the server.
        gate: how much may be under way.
        metrics: what is counted.
        open_paths: further ones that are answered without a key.
    """

    def __init__(self, app: App, settings: ServerSettings, gate: Gate, metrics: Metrics, open_paths: Collection[str] = ()) -> None:
        self._app, self._gate, self._metrics, self._open_paths = app, gate, metrics, open_paths
        self._limits: Limits = settings.limits
        self._keys, self._hosts = Keys(settings.keys), frozenset(settings.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        record = Record(given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        scope[RECORD] = record
        try:
            await self._answer(scope, headers, receive, self._sender(record, send), record)
        finally:
            self._gate.give_back(record.body)
            self._note(scope, record)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send, record: Record) -> None:
        try:
            self._admit(scope, headers)
            body = await self._body(headers, receive, record)
            await self._run(scope, body, receive, send, record)
        except RequestError as error:
            if error.status == CLOSED_BY_CLIENT:
                record.status = CLOSED_BY_CLIENT
                return
            record.refused = error.code
            await self._say(scope, error, receive, send, record)
        except (DataError, MediaError, RecipeError, RenderError) as error:
            await self._say(scope, RequestError(400, str(error), "invalid_input"), receive, send, record)
        except Exception as error:
            record.error = place(error)
            message = f"internal error; the log has it under request id {record.id}"
            await self._say(scope, RequestError(500, message, "internal_error"), receive, send, record)

    async def _say(self, scope: Scope, error: RequestError, receive: Receive, send: Send, record: Record) -> None:
        if record.status is not None:
            return  # the answer had begun; all that is left is to break it off
        headers = {"Connection": "close"} if error.status in (401, 403, 408, 413, 429) else {}  # the body may not have been read
        await respond(scope["path"], error, headers)(scope, receive, send)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if scope["path"] in OPEN_PATHS:
            return
        if self._hosts and _host(headers.get(b"host", b"")) not in self._hosts:
            raise RequestError(421, "this server does not answer to the name in the header Host; see --allow-host", "unknown_host")
        if scope["path"] not in self._open_paths:
            self._keys.check(headers.get(b"authorization"))

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, record: Record) -> bytes:
        """The whole body, within its limits of size and time, with room held for it."""
        said = headers.get(b"content-length", b"")
        if said.isdigit() and int(said) > self._limits.body_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestError(CLOSED_BY_CLIENT, "the client went away")
                    piece = message.get("body", b"")
                    if len(body) + len(piece) > self._limits.body_bytes:
                        raise self._too_large()
                    self._gate.take(len(piece))
                    record.body += len(piece)
                    body += piece
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as error:
            raise RequestError(408, f"the body did not arrive within {self._limits.body_seconds:g} s", "body_too_slow") from error

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body is over the limit of {self._limits.body_bytes} bytes", "body_too_large")

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send, record: Record) -> None:
        """Let the application answer, until it has, its time is up, or the client goes away."""
        task = asyncio.ensure_future(self._app(scope, _replay(body), send))
        gone = asyncio.ensure_future(_disconnected(receive))
        deadline = self._limits.request_seconds - (time.monotonic() - record.began)
        try:
            await asyncio.wait({task, gone}, timeout=max(deadline, 0.0), return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not gone.done() and record.status is not None:
                # A large answer under way may take its time: each of its pieces has its own limit.
                await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done() or record.complete:
                await task
            elif gone.done():
                raise RequestError(CLOSED_BY_CLIENT, "the client went away")
            else:
                raise RequestError(504, f"no answer within {self._limits.request_seconds:g} s", "timeout")
        finally:
            await _cancelled(task, gone)

    def _sender(self, record: Record, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status, record.seconds = message["status"], time.monotonic() - record.began
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", record.id.encode())]
            try:
                async with asyncio.timeout(self._limits.send_seconds):
                    await send(message)
            except TimeoutError as error:
                raise RequestError(CLOSED_BY_CLIENT, "the client does not take the answer") from error
            record.complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        return wrapped

    def _note(self, scope: Scope, record: Record) -> None:
        seconds = time.monotonic() - record.began
        route = getattr(scope.get("route"), "path", "none")
        status = record.status if record.status is not None else CLOSED_BY_CLIENT
        self._metrics.requests.labels(scope["method"] if scope["method"] in _METHODS else "other", route, status).inc()
        self._metrics.seconds.labels(route).observe(record.seconds if record.seconds is not None else seconds)
        self._metrics.items.labels(route).inc(record.items)
        if record.refused:
            self._metrics.refused.labels(record.refused).inc()
        log_request(scope["method"], scope["path"], status, seconds, record.items, record.id, record.error)


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def _host(header: bytes) -> str:
    """A host without its port."""
    name = header.decode("latin-1").lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _replay(body: bytes) -> Receive:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.Event().wait()  # the guard itself watches for the end of the connection
        raise AssertionError

    return receive


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they are over."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
