"""Who may ask, how much, how slowly, and what the log and the metrics say of it, over real connections."""

import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

import tiny
from umr.errors import RecipeError
from umr.items import Item
from umr.serving import logs
from umr.serving.gate import Gate
from umr.serving.settings import Limits, ServerSettings, load_keys
from unit.serving.live_server import KEY, Running, bare, running
from unit.serving.test_embeddings import data_uri

TIGHT = Limits(
    body_bytes=20_000,
    body_seconds=0.6,
    header_seconds=0.6,
    request_seconds=1.0,
    queued_bytes=30_000,
    items=4,
    queued_items=6,
    connections=50,
)


@pytest.fixture(scope="module")
def tight() -> Iterator[Running]:
    """A server with little patience, open to one web page and under one name."""
    with running(ServerSettings(origins=("https://shop.example",), hosts=("127.0.0.1",), limits=TIGHT)) as found:
        yield found


@pytest.fixture(scope="module")
def free(tight: Running) -> Iterator[httpx.Client]:
    with tight.client(key=None) as found:
        yield found


class Hold:
    """Keeps a server's model thread busy until it is released."""

    def __init__(self, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.started, self.rows = threading.Event(), threading.Event(), 0
        lane = server.service.embedders["tiny"]._lane
        forward = lane.forward

        def held(rows: list) -> np.ndarray:
            self.started.set()
            self.free.wait(20)
            self.rows += len(rows)
            return forward(rows)

        monkeypatch.setitem(lane.__dict__, "forward", held)


def ask(client: httpx.Client, inputs: object = "a red circle", **more: object) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": "tiny", "input": inputs}, **more)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def wait_for(condition) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def test_a_key_is_asked_for_before_anything_else(server: Running):
    for headers in ({}, {"Authorization": "Bearer wrong-key-wrong-key"}, {"Authorization": f"Basic {KEY}"}, {"Authorization": KEY}):
        answer = bare.post(f"{server.url}/v1/embeddings", content=b"{", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert bare.get(f"{server.url}/metrics", headers=headers).status_code == 401
    answer = bare.post(f"{server.url}/v2/embed", content=b"{")
    assert (answer.status_code, list(answer.json())) == (401, ["message"])
    for path in ("/healthz", "/healthz/live", "/healthz/ready"):
        assert bare.get(server.url + path).json() == {"status": "ok"}


def test_keys_come_from_a_file_and_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key-of-the-file\n\nsecond-key-of-the-file\n")
    assert load_keys(file, {"UMR_API_KEYS": "one-key-of-the-shell, first-key-of-the-file"}) == (
        "first-key-of-the-file",
        "second-key-of-the-file",
        "one-key-of-the-shell",
    )
    file.write_text("# none\n")
    for arguments, message in (
        ((file, {}), "holds no key"),
        ((tmp_path / "missing", {}), "key file cannot be read"),
        ((None, {"UMR_API_KEYS": " , "}), "UMR_API_KEYS is set but holds no key"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_keys(*arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keys": ("short",)}, "at least 16"),
        ({"origins": ("*",)}, "needs API keys"),
        ({"origins": ("shop.example",)}, "write it as https://name"),
    ],
)
def test_settings_that_would_open_a_server_by_mistake_are_refused(settings: dict, message: str):
    with pytest.raises(RecipeError, match=message):
        ServerSettings(**settings)


@pytest.mark.parametrize(
    ("limits", "message"), [({"items": 5000}, "never fit"), ({"body_bytes": 1 << 40}, "never fit"), ({"items": 0}, "above")]
)
def test_limits_that_contradict_each_other_are_refused(limits: dict, message: str):
    with pytest.raises(RecipeError, match=message):
        Limits(**limits)


def test_large_bodies_are_refused_announced_or_not(free: httpx.Client, tight: Running):
    assert code(ask(free, "x" * 30_000)) == (413, "body_too_large")

    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 1000

    answer = bare.post(f"{tight.url}/v1/embeddings", content=pieces())
    assert code(answer) == (413, "body_too_large")
    wait_for(lambda: tight.service.gate.bytes == 0)


def test_many_items_are_refused(free: httpx.Client):
    assert code(ask(free, ["x"] * 5)) == (400, "too_many_items")


def test_bombs_are_refused_before_they_are_decoded(client: httpx.Client):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    answer = ask(client, [{"image": data_uri(bomb)}])
    assert answer.status_code == 400
    assert "over the limit of 64000000 pixels" in answer.json()["error"]["message"] or "claims more" in answer.json()["error"]["message"]
    file = io.BytesIO()
    tiny.picture(64, 64).save(file, "png")
    assert "damaged or truncated" in ask(client, [{"image": data_uri(file.getvalue()[:-40])}]).json()["error"]["message"]
    svg = "data:image/svg+xml;base64,PHN2Zy8+"
    assert "is not an image" in ask(client, [{"image": svg}]).json()["error"]["message"]


def test_a_full_queue_says_when_to_come_back(free: httpx.Client, tight: Running, monkeypatch: pytest.MonkeyPatch):
    hold = Hold(tight, monkeypatch)
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(tight.client(None), ["x", "y", "z"]))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: tight.service.gate.items == 6)
    refused = ask(free)
    assert code(refused) == (429, "queue_full")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    hold.free.set()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert ask(free).status_code == 200
    assert 'umr_refused_total{reason="queue_full"} 1.0' in free.get("/metrics").text


def test_bytes_have_a_queue_of_their_own():
    gate = Gate(TIGHT)
    gate.take(30_000)
    with pytest.raises(Exception, match=r"queue is full \(bytes\)"):
        gate.take(1)
    gate.give_back(30_000)
    gate.take(1)


def test_what_takes_too_long_is_dropped(free: httpx.Client, tight: Running, monkeypatch: pytest.MonkeyPatch):
    hold = Hold(tight, monkeypatch)
    blocked = threading.Thread(target=lambda: ask(tight.client(None), "the one that is being computed"))
    blocked.start()
    assert hold.started.wait(10)
    assert code(ask(free, ["x", "y"])) == (504, "timeout")
    blocked.join()
    assert tight.service.gate.items == 0
    hold.free.set()
    assert ask(free).status_code == 200
    assert hold.rows == 2, "the two rows that nobody waited for any more were not computed"


def test_work_for_a_client_that_goes_away_is_dropped(free: httpx.Client, tight: Running, monkeypatch: pytest.MonkeyPatch):
    hold = Hold(tight, monkeypatch)
    body = json.dumps({"model": "tiny", "input": ["x", "y"]}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", tight.port)) as first, socket.create_connection(("127.0.0.1", tight.port)) as second:
        first.sendall(head.encode() + body)
        assert hold.started.wait(10)
        second.sendall(head.encode() + body)
        wait_for(lambda: tight.service.gate.items == 4)
    wait_for(lambda: tight.service.gate.items == 0)
    hold.free.set()
    assert ask(free).status_code == 200
    assert hold.rows <= 3, "the second request was never computed"
    assert 'status="499"' in free.get("/metrics").text


@pytest.mark.parametrize("slow", ["head", "body", "silence"])
def test_slow_clients_are_cut_off(tight: Running, slow: str):
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", tight.port), timeout=10) as connection:
        if slow == "body":
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        received = b""
        try:
            while time.monotonic() - started < 5:
                if slow != "silence":
                    connection.sendall(b"x")  # a byte now and then shall not prolong it
                connection.settimeout(0.2)
                try:
                    piece = connection.recv(1000)
                except TimeoutError:
                    continue
                if not piece:
                    break
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert 0.4 < time.monotonic() - started < 4
    assert (b"408" in received) == (slow == "body")


def test_long_heads_are_refused(tight: Running):
    with socket.create_connection(("127.0.0.1", tight.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


def test_only_the_names_given_are_answered_to(tight: Running):
    for host, status in (("127.0.0.1", 200), ("127.0.0.1:80", 200), ("evil.example", 421), ("[::1]", 421), ("", 421)):
        answer = bare.get(f"{tight.url}/v1/models", headers={"Host": host})
        assert answer.status_code == status


def test_browsers_may_call_from_the_pages_given_alone(tight: Running, server: Running):
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for url, origin, allowed in (
        (tight.url, "https://shop.example", "https://shop.example"),
        (tight.url, "https://evil.example", None),
        (server.url, "https://shop.example", None),
    ):
        answer = bare.options(f"{url}/v1/embeddings", headers={"Origin": origin, **preflight})
        assert answer.headers.get("access-control-allow-origin") == allowed
        answer = bare.get(f"{url}/nowhere", headers={"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/../../etc/passwd", "//etc/passwd", "/docs/../../x"]
)
def test_paths_lead_nowhere(server: Running, path: str):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 404")


def test_a_mistake_of_ours_is_told_by_its_place_alone(free: httpx.Client, tight: Running, monkeypatch: pytest.MonkeyPatch):
    def broken(*arguments: object) -> None:
        raise KeyError("the secret of the caller")

    monkeypatch.setattr(tight.service, "embedder", broken)
    lines = io.StringIO()
    logs.configure(lines)
    answer = ask(free, "private words", headers={"X-Request-ID": "abc-1"})
    good = free.get("/v1/models?token=private", headers={"X-Request-ID": "bad id"})
    ids = ("abc-1", good.headers["x-request-id"])

    def told() -> dict[str, dict]:
        """Lines about these two by request: one about a request of an earlier test may come late."""
        found = [json.loads(line) for line in lines.getvalue().rpartition("\n")[0].splitlines()]
        return {line["request_id"]: line for line in found if line.get("request_id") in ids}

    wait_for(lambda: len(told()) == 2)
    assert code(answer) == (500, "internal_error")
    assert "abc-1" in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"] == "abc-1"
    first, second = (told()[id] for id in ids)
    assert (first["status"], first["method"], first["path"], first["request_id"]) == (500, "POST", "/v1/embeddings", "abc-1")
    assert first["error"].startswith("KeyError in umr/serving/")
    assert (second["status"], second["path"], second["request_id"]) == (200, "/v1/models", good.headers["x-request-id"])
    assert "private" not in lines.getvalue() and "secret" not in lines.getvalue()


def test_a_server_that_ends_finishes_what_was_begun(monkeypatch: pytest.MonkeyPatch):
    answers: list[httpx.Response] = []
    with running(ServerSettings()) as found:
        hold = Hold(found, monkeypatch)
        asking = threading.Thread(target=lambda: answers.append(ask(found.client(None))))
        asking.start()
        wait_for(lambda: found.service.gate.items == 1)
        found.server._drain_seconds = 2.0
        found.server.handle_exit(15, None)
        waiting = bare.get(f"{found.url}/healthz/ready")
        assert (waiting.status_code, waiting.json()) == (503, {"status": "draining"})
        assert bare.get(f"{found.url}/healthz/live").status_code == 200
        threading.Timer(2.5, hold.free.set).start()
        found.server.handle_exit = lambda *signal: None  # the fixture's own, which would not wait
    asking.join()
    np.testing.assert_allclose(
        answers[0].json()["data"][0]["embedding"], found.embedder.encode([Item.of(text="a red circle")])[0], atol=1e-5
    )
    with pytest.raises(httpx.ConnectError):
        bare.get(found.url)
