"""No address that a request names leads into the private network, whatever its name server says and wherever it redirects to."""

import asyncio
import ipaddress
from collections.abc import Callable, Sequence

import httpcore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.serving.addresses import PublicNetwork, is_public
from umr.serving.errors import RequestError
from umr.serving.fetching import Fetcher, check_url
from umr.serving.settings import UrlSettings

PUBLIC = ("93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8")
PRIVATE = (
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.8.9.10", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1",
    "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:53aa:64c:0:0:80ff:fffe", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1", "localhost", "", "1",
)  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address: str):
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_others_may_not(address: str):
    assert not is_public(address)


@settings(max_examples=100, deadline=None)
@given(st.ip_addresses(v=4))
def test_an_address_in_the_clothes_of_ipv6_is_judged_by_what_it_is(address: ipaddress.IPv4Address):
    assert is_public(f"::ffff:{address}") == is_public(str(address))
    for dressed in (f"64:ff9b::{address}", f"::{address}"):
        assert not is_public(dressed)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.org/1.png", "gopher://example.org", "http://", "https:///1.png", "http://user@example.org/",
        "http://user:word@example.org/", "http://example.org:8080/", "https://example.org:80/", "http://example.org:99999/",
        "http://exämple.org/", "http://example.org/\r\nX: y", "http://[::1/",
    ],
)  # fmt: skip
def test_malformed_urls_are_refused(url: str):
    with pytest.raises(RequestError, match="an address"):
        check_url(url)


class Web(httpcore.AsyncNetworkBackend):
    """A network whose hosts answer with fixed bytes; it notes which addresses were called."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers, self.called = answers, []

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.called.append(host)
        if host not in self.answers:
            raise httpcore.ConnectError("nobody there")
        return Stream(self.answers[host])

    async def connect_unix_socket(self, path, timeout=None, socket_options=None):
        raise AssertionError

    async def sleep(self, seconds):
        raise AssertionError


class Stream(httpcore.AsyncNetworkStream):
    def __init__(self, answer: bytes) -> None:
        self.left = answer

    async def read(self, max_bytes, timeout=None):
        if self.left == b"never":
            await asyncio.sleep(60)
        piece, self.left = self.left[:1000], self.left[1000:]
        return piece

    async def write(self, buffer, timeout=None):
        pass

    async def aclose(self):
        pass

    def get_extra_info(self, info):
        return None


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def fetch(url: str, names: dict[str, Sequence[str]] | Callable[[str], Sequence[str]], web: Web, **limits: float) -> bytes:
    async def resolve(name: str, port: int) -> Sequence[str]:
        found = names(name) if callable(names) else names.get(name, [])
        if not found:
            raise OSError("no such name")
        return found

    async def run() -> bytes:
        return await Fetcher(UrlSettings(**limits), PublicNetwork(resolve, web)).fetch(url)

    return asyncio.run(run())


def refusal(*arguments, **limits) -> str:
    with pytest.raises(RequestError) as caught:
        fetch(*arguments, **limits)
    assert caught.value.status == 400
    return str(caught.value)


def test_a_public_address_is_fetched():
    web = Web({"93.184.215.14": answer(b"picture" * 500)})
    assert fetch("http://example.org/1.png", {"example.org": ["93.184.215.14"]}, web) == b"picture" * 500


def test_a_name_with_one_private_address_is_refused_whole():
    web = Web({"93.184.215.14": answer(b"x"), "10.0.0.5": answer(b"secret")})
    assert "not on the public internet" in refusal("http://e.org/", {"e.org": ["93.184.215.14", "10.0.0.5"]}, web)
    assert web.called == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest", "http://2130706433/", "http://0x7f.1/"]
)
def test_addresses_in_urls_are_judged_as_those_of_names(url: str):
    import socket

    def system(name: str) -> list[str]:
        return [str(one[4][0]) for one in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)]

    assert "not on the public internet" in refusal(url, system, Web({"127.0.0.1": answer(b"secret")}))


def test_a_name_that_changes_its_address_after_the_check_gains_nothing():
    answers = iter([["93.184.215.14"], ["127.0.0.1"]])
    web = Web({"93.184.215.14": answer(b"picture"), "127.0.0.1": answer(b"secret")})
    assert fetch("http://rebind.org/", lambda name: next(answers), web) == b"picture"
    assert web.called == ["93.184.215.14"], "the address that was checked is the one that is called"
    assert next(answers) == ["127.0.0.1"], "the name was looked up once"


def test_redirects_are_checked_like_the_first_address():
    names = {"e.org": ["93.184.215.14"], "inside.org": ["192.168.0.7"]}
    for target, message in (
        ("http://inside.org/", "not on the public internet"),
        ("http://127.0.0.1/", "has no address"),
        ("file:///etc/passwd", "must begin with http"),
        ("http://e.org:22/", "usual port"),
    ):
        web = Web({"93.184.215.14": answer(b"", "302 Found", f"Location: {target}"), "192.168.0.7": answer(b"secret")})
        assert message in refusal("http://e.org/", names, web)
        assert set(web.called) == {"93.184.215.14"}


def test_redirects_are_followed_a_few_times():
    names = {"e.org": ["93.184.215.14"], "f.org": ["1.1.1.1"]}
    web = Web({"93.184.215.14": answer(b"", "301 Moved", "Location: http://f.org/2.png"), "1.1.1.1": answer(b"picture")})
    assert fetch("http://e.org/1.png", names, web) == b"picture"
    web = Web({"93.184.215.14": answer(b"", "302 Found", "Location: /again")})
    assert "more than 3 redirects" in refusal("http://e.org/", names, web)
    assert len(web.called) == 4


def test_size_time_and_status_have_limits():
    names = {"e.org": ["93.184.215.14"]}
    assert "over the limit of 100 bytes" in refusal("http://e.org/", names, Web({"93.184.215.14": answer(b"x" * 101)}), bytes=100)
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000
    assert "over the limit of 100 bytes" in refusal("http://e.org/", names, Web({"93.184.215.14": endless}), bytes=100)
    assert "did not answer within 0.05 s" in refusal("http://e.org/", names, Web({"93.184.215.14": b"never"}), seconds=0.05)
    assert "status 404" in refusal("http://e.org/", names, Web({"93.184.215.14": answer(b"", "404 Not Found")}))
    assert "cannot be reached" in refusal("http://e.org/", names, Web({}))
    assert "cannot be reached" in refusal("http://e.org/", names, Web({"93.184.215.14": b"nonsense"}))
    assert "has no address" in refusal("http://nowhere.org/", names, Web({}))


def test_the_next_address_is_tried_when_one_does_not_answer():
    web = Web({"1.1.1.1": answer(b"picture")})
    assert fetch("http://e.org/", {"e.org": ["93.184.215.14", "1.1.1.1"]}, web) == b"picture"
    assert web.called == ["93.184.215.14", "1.1.1.1"]
