"""What the page stands on: its files and their policy, pictures that every browser shows, and marks over HTTP."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import httpx
import PIL.Image
import pytest

from umr.search.judgements import Judgements
from umr.serving.settings import ServerSettings
from unit.serving.live_server import KEY, Running, bare, running
from unit.serving.shown_folder import copied
from unit.serving.test_embeddings import data_uri, png

PAGE = files("umr.serving").joinpath("page")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def shown(home: Path) -> Iterator[Running]:
    with running(ServerSettings(keys=(KEY,), hosts=("127.0.0.1",)), home=home) as found:
        yield found


@pytest.fixture(scope="module")
def client(shown: Running) -> Iterator[httpx.Client]:
    with shown.client() as found:
        yield found


def test_the_page_and_all_that_it_names_are_sent_without_a_key(shown: Running) -> None:
    page = bare.get(shown.url)
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:href|src)="(page/[^"]+)"', page.text))
    assert {"page/page.js", "page/page.css", "page/icon.svg"} <= named
    for path in sorted(named):
        sent = bare.get(f"{shown.url}/{path}")
        assert sent.status_code == 200 and sent.content == PAGE.joinpath(path.removeprefix("page/")).read_bytes()
        imported = re.findall(r'from "\./([^"]+)"', sent.text)
        assert all(bare.get(f"{shown.url}/page/{name}").headers["content-type"] == "text/javascript; charset=utf-8" for name in imported)


def test_the_policy_lets_nothing_from_elsewhere_in(shown: Running) -> None:
    for path in ("/", "/page/page.js"):
        headers = bare.get(shown.url + path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'" and policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'" and "unsafe" not in str(policy) and "http" not in str(policy)
        assert headers["x-content-type-options"] == "nosniff"


def test_an_unchanged_file_is_not_sent_again(shown: Running) -> None:
    tag = bare.get(f"{shown.url}/page/page.css").headers["etag"]
    again = bare.get(f"{shown.url}/page/page.css", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert bare.get(f"{shown.url}/page/page.js", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize("path", ["/page/none.js", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/__init__.py", "/page/"])
def test_nothing_else_is_a_file_of_the_page(shown: Running, client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404
    assert bare.get(shown.url + path).status_code == 401  # and without a key nobody learns what there is


def test_the_page_answers_to_its_own_host_alone(shown: Running) -> None:
    assert bare.get(shown.url, headers={"Host": "evil.example"}).status_code == 421


def test_the_sources_put_no_text_into_markup_and_name_no_other_server() -> None:
    for source in PAGE.iterdir():
        text = source.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\son[a-z]+=[\"']", text), (
            source.name
        )
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), source.name


# --- pictures


def picture(client: httpx.Client, id: str) -> tuple[httpx.Response, tuple[int, int]]:
    answer = client.get(f"/v1/collections/shown/picture?id={quote(id, safe='')}")
    assert answer.status_code == 200, answer.text
    return answer, PIL.Image.open(io.BytesIO(answer.content)).size


def test_what_browsers_show_is_sent_as_it_is(client: httpx.Client) -> None:
    answer, size = picture(client, "photos/shot-1.jpg")
    assert (answer.headers["content-type"], size) == ("image/jpeg", (320, 240))
    assert "sandbox" in answer.headers["content-security-policy"]


def test_other_formats_pages_and_clips_become_pictures(client: httpx.Client) -> None:
    scan, size = picture(client, "photos/scan.tiff")
    assert (scan.headers["content-type"], size) == ("image/webp", (320, 240))
    page, (width, height) = picture(client, "paper.pdf#page=2")
    assert page.headers["content-type"] == "image/webp" and min(width, height) > 500 and abs(width / height - 2 / 3) < 0.01
    _, (width, height) = picture(client, "film.mp4#t=0-2")
    assert (width % 32, height) == (0, 32) and width >= 64  # frames of 32 by 32 side by side


@pytest.mark.parametrize("id", ["note.txt#chunk=1", "none", "../files", ""])
def test_no_picture_of_anything_else(client: httpx.Client, id: str) -> None:
    answer = client.get("/v1/collections/shown/picture", params={"id": id})
    assert answer.status_code == 404 and "/" not in answer.json()["error"]["message"].replace(repr(id), "")


# --- marks


def judge(client: httpx.Client, **asked: object) -> dict[str, bool]:
    answer = client.post("/v1/collections/shown/judgements", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["marks"]


def test_marks_are_kept_read_and_taken_back(client: httpx.Client, home: Path) -> None:
    query = {"text": "a red circle", "image": data_uri(png())}
    assert judge(client, query=query, id="note.txt#chunk=1", right=True) == {"note.txt#chunk=1": True}
    assert judge(client, query=query, id="paper.pdf#page=1", right=False) == {"note.txt#chunk=1": True, "paper.pdf#page=1": False}
    assert judge(client, query=query) == {"note.txt#chunk=1": True, "paper.pdf#page=1": False}
    assert judge(client, query=query, instruction="Find something else.") == {}
    assert judge(client, query=query, id="note.txt#chunk=1", right=None) == {"paper.pdf#page=1": False}
    assert [(mark.id, mark.right) for mark in Judgements(home / "shown").marks()] == [("paper.pdf#page=1", False)]


def test_what_is_like_an_item_is_judged_with_the_item_as_the_query(client: httpx.Client, home: Path) -> None:
    assert judge(client, like="photos/shot-0.jpg", id="photos/shot-1.jpg", right=True) == {"photos/shot-1.jpg": True}
    mark = Judgements(home / "shown").marks()[-1]
    assert (home / "shown/judgements" / mark.image).read_bytes() == client.get("/v1/collections/shown/media?id=photos/shot-0.jpg").content


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "give either query or like"),
        ({"query": "x", "like": "note.txt#chunk=1"}, "give either query or like"),
        ({"query": "x", "right": True}, "id and right go together"),
        ({"query": "x", "id": "note.txt#chunk=1"}, "id and right go together"),
        ({"query": "x", "id": "none", "right": True}, "has no row 'none'"),
        ({"like": "none"}, "has no row 'none'"),
        ({"query": "x", "id": "note.txt#chunk=1", "right": "yes please"}, "right"),
    ],
)
def test_marks_that_make_no_sense_are_refused(client: httpx.Client, home: Path, asked: dict[str, object], message: str) -> None:
    answer = client.post("/v1/collections/shown/judgements", json=asked)
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]
    assert str(home) not in answer.text


def test_a_form_of_another_page_makes_no_mark(client: httpx.Client) -> None:
    """What a page elsewhere can send without asking: JSON that calls itself text."""
    body = '{"query": "planted", "id": "note.txt#chunk=1", "right": true}'
    assert client.post("/v1/collections/shown/judgements", content=body, headers={"Content-Type": "text/plain"}).status_code == 400
    assert judge(client, query="planted") == {}


def test_on_a_server_for_searching_alone_marks_are_read_and_not_made(home: Path) -> None:
    with running(ServerSettings(keys=(KEY,)), home=home, read_only=True) as server, server.client() as client:
        assert judge(client, query="planted") == {}
        asked = {"query": "planted", "id": "note.txt#chunk=1", "right": True}
        assert client.post("/v1/collections/shown/judgements", json=asked).status_code == 403
