"""How a server behaves: limits, keys, and who may ask. Checked once, when it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from umr.errors import RecipeError

KEYS_VARIABLE = "UMR_API_KEYS"
SHORTEST_KEY = 16
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take.

    Attributes:
        body_bytes: of a request; more is answered 413.
        body_seconds: in which a request's body must have arrived, else 408.
        header_seconds: in which a request's head must have arrived, else the connection is closed.
        header_bytes: of a request's head.
        request_seconds: until an answer begins, else 504 and the work is dropped.
        send_seconds: for a client to take the next piece of an answer, else the connection is closed.
        items: that one request may hold.
        queued_items: of all requests that are being answered; more are answered 429.
        queued_bytes: of the bodies of all requests that are being answered; more are answered 429.
        connections: open at once; more are answered 503.
        batch_wait_seconds: how long a batch that is not full waits for items that are still being prepared.
        prepare_threads: that decode and tokenise; default one a core, at most 4.
    """

    body_bytes: int = 32 << 20
    body_seconds: float = 20.0
    header_seconds: float = 10.0
    header_bytes: int = 16 << 10
    request_seconds: float = 60.0
    send_seconds: float = 30.0
    items: int = 512
    queued_items: int = 2048
    queued_bytes: int = 256 << 20
    connections: int = 1024
    batch_wait_seconds: float = 0.005
    prepare_threads: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise RecipeError(f"server limit {name}={value} must be above zero")
        if self.items > self.queued_items:
            raise RecipeError(f"a request of {self.items} items would never fit into a queue of {self.queued_items}; raise queued_items")
        if self.body_bytes > self.queued_bytes:
            raise RecipeError(f"a body of {self.body_bytes} bytes would never fit into {self.queued_bytes}; raise queued_bytes")


@dataclass(frozen=True)
class UrlSettings:
    """How media are fetched from addresses that requests name.

    Attributes:
        bytes: of one medium.
        seconds: for one medium, with all its redirects.
        redirects: that are followed, each checked as the first address.
    """

    bytes: int = 16 << 20
    seconds: float = 10.0
    redirects: int = 3


@dataclass(frozen=True)
class ServerSettings:
    """How a server behaves.

    Attributes:
        keys: API keys, any of which opens; none for an open server.
        origins: web pages that may call from a browser (CORS), such as `https://shop.example`; none by default.
        hosts: names that requests may call this server by; none for any. Guards a server on the loopback address against web pages
            that point a name of theirs at it (DNS rebinding).
        urls: how media are fetched from addresses in requests; None refuses such requests.
        limits: what requests may take.
    """

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    urls: UrlSettings | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for key in self.keys:
            if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise RecipeError(f"an API key must be at least {SHORTEST_KEY} printable ASCII characters without spaces")
        for origin in self.origins:
            parts = urlsplit(origin)
            if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query):
                raise RecipeError(f"CORS origin {origin!r}: write it as https://name, without a path")
        if "*" in self.origins and not self.keys:
            raise RecipeError("CORS for every origin needs API keys: otherwise any web page could use this server through its visitors")


def load_keys(file: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """API keys from a file (one a line, `#` begins a comment) and from the variable `UMR_API_KEYS` (commas between them).

    Raises:
        RecipeError: the file cannot be read, or a source that was given holds no key.
    """
    keys: list[str] = []
    if file is not None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{file}: key file cannot be read ({getattr(error, 'strerror', None) or error})") from error
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise RecipeError(f"{file}: holds no key; write one a line")
        keys += found
    if (text := environment.get(KEYS_VARIABLE)) is not None:
        found = [part.strip() for part in text.split(",") if part.strip()]
        if not found:
            raise RecipeError(f"{KEYS_VARIABLE} is set but holds no key; unset it for an open server")
        keys += found
    return tuple(dict.fromkeys(keys))
