"""Which network addresses a server may call on behalf of those who ask it: public ones, checked at the moment of connecting.

A name is resolved once, every address it has must be public, and the connection goes to one of those that were checked; so a name
that changes its address between the check and the use (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore

from umr.serving.errors import RequestError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""A name and a port to addresses."""

_TRANSLATED = (
    ipaddress.ip_network("64:ff9b::/96"),  # NAT64, RFC 6052
    ipaddress.ip_network("64:ff9b:1::/48"),  # NAT64 for local use, RFC 8215
    ipaddress.ip_network("::/96"),  # IPv4-compatible, RFC 4291
)


def is_public(address: str) -> bool:
    """Whether an address is on the public internet, be it written as IPv4, as IPv6, or as one that carries the other.

    Private, loopback, link-local (with the metadata services of clouds), shared, multicast and reserved addresses are not.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in network for network in _TRANSLATED):
            return False
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return found.ipv4_mapped is not None and is_public(str(inner))  # 6to4 and Teredo are tunnels that nobody needs any more
        if found.is_site_local:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


async def resolve(name: str, port: int) -> Sequence[str]:
    """All addresses of a name, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses alone.

    Args:
        resolve: finds the addresses of a name.
        network: makes the connections.
        public: whether an address may be called.
    """

    def __init__(
        self, resolve: Resolve = resolve, network: httpcore.AsyncNetworkBackend | None = None, public: Callable[[str], bool] = is_public
    ) -> None:
        self._resolve, self._public = resolve, public
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check every address, connect to the first that answers.

        Raises:
            RequestError: 400, the name has no address, or one that is not public.
        """
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise RequestError(400, f"the host {host} has no address", "url_not_reachable")
        if not all(self._public(address) for address in addresses):
            raise RequestError(400, f"the host {host} is not on the public internet; such addresses are never called", "url_not_allowed")
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refused."""
        raise RequestError(400, "sockets in the file system are never called", "url_not_allowed")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
