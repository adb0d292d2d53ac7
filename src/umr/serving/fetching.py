"""Fetching media from addresses that requests name: off by default, within limits of size, time and redirects, from public hosts alone."""

from __future__ import annotations

import asyncio
from urllib.parse import urljoin, urlsplit

import httpcore

from umr.serving.addresses import PublicNetwork
from umr.serving.errors import RequestError
from umr.serving.settings import UrlSettings

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
AT_ONCE = 16
"""Fetches under way, of all requests."""


class Fetcher:
    """Gets media from addresses. No proxies, no cookies, no compression, no credentials.

    Args:
        settings: limits; None refuses every address.
        network: makes the connections; by default to public addresses alone.
    """

    def __init__(self, settings: UrlSettings | None, network: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._settings = settings
        self._network = network or PublicNetwork()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str) -> bytes:
        """The bytes at an address.

        Raises:
            RequestError: 400: addresses are not allowed here; this one is not well-formed, not public, not there, too large or too slow.
        """
        if self._settings is None:
            raise RequestError(400, "this server fetches nothing from addresses; send media as data URIs", "urls_not_allowed")
        try:
            async with self._room, asyncio.timeout(self._settings.seconds), self._pool() as pool:
                return await self._follow(pool, url, self._settings)
        except TimeoutError as error:
            raise RequestError(400, f"an address did not answer within {self._settings.seconds:g} s", "url_too_slow") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise RequestError(400, "an address cannot be reached", "url_not_reachable") from error

    def _pool(self) -> httpcore.AsyncConnectionPool:
        """One for each fetch: no connection to a host outlives the check of its address."""
        return httpcore.AsyncConnectionPool(network_backend=self._network, retries=0)

    async def _follow(self, pool: httpcore.AsyncConnectionPool, url: str, settings: UrlSettings) -> bytes:
        for _ in range(settings.redirects + 1):
            check_url(url)
            headers: dict[bytes | str, bytes | str] = {
                "Host": urlsplit(url).netloc,
                "Accept": "image/*",
                "Accept-Encoding": "identity",
                "User-Agent": "umr",
            }
            async with pool.stream("GET", url, headers=headers) as response:
                if response.status in _REDIRECTS:
                    url = urljoin(url, _header(response, b"location").decode("latin-1"))
                    continue
                if response.status != 200:
                    raise RequestError(400, f"an address answered with status {response.status}", "url_not_reachable")
                return await _read(response, settings.bytes)
        raise RequestError(400, f"an address led through more than {settings.redirects} redirects", "url_not_reachable")


def check_url(url: str) -> None:
    """Raise `RequestError` unless `url` is http or https, on its usual port, with a host and without credentials."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RequestError(400, "an address is not well-formed", "url_not_allowed") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise RequestError(400, "an address must begin with http:// or https:// and name a host", "url_not_allowed")
    if parts.username is not None or parts.password is not None:
        raise RequestError(400, "an address must not hold credentials", "url_not_allowed")
    if port not in (None, _PORTS[parts.scheme]):
        raise RequestError(400, "an address must use the usual port, 80 or 443", "url_not_allowed")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise RequestError(400, "an address must be written in ASCII, with other characters escaped", "url_not_allowed")


async def _read(response: httpcore.Response, limit: int) -> bytes:
    said = _header(response, b"content-length")
    data = bytearray()
    if not (said.isdigit() and int(said) > limit):
        async for piece in response.aiter_stream():
            data += piece
            if len(data) > limit:
                break
        else:
            return bytes(data)
    raise RequestError(400, f"what lies at an address is over the limit of {limit} bytes", "url_too_large")


def _header(response: httpcore.Response, name: bytes) -> bytes:
    return next((bytes(value) for key, value in response.headers if key.lower() == name), b"")
