"""Collections over HTTP: made, filled, searched and emptied; files by id alone, and nothing outside."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest

import tiny
from umr.errors import ModelError, RecipeError
from umr.items import Item
from umr.search.collection import Collection
from umr.serving.collections import Collections, folders_of
from umr.serving.settings import ServerSettings
from unit.serving.live_server import KEY, Running, bare, running
from unit.serving.test_embeddings import data_uri, png

TEXTS = {"a/1": "a red circle top left", "a/2": "blue ring center", "b#3": "two of them moving over the scene"}
PICTURES = {"p/é 1": 11, "p/2": 12}
INSTRUCTION = "Find it."


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of collections, one of which has an indexed root with hostile rows."""
    home = tmp_path_factory.mktemp("home")
    root = home / "files"
    root.mkdir()
    (root / "in.png").write_bytes(png(seed=5))
    (root / "page.html").write_text("<script>alert(1)</script>")
    (root / "link.png").symlink_to("/etc/passwd")
    (home / "secret.png").write_bytes(png(seed=6))
    with Collection.create(home / "rooted", tiny.embedder("qwen3-vl"), root=root, model_name="tiny") as made:
        made.add([Item.of(image=root / "in.png", id="in"), Item.of(text="nothing", id="none")])
        rows = {row.id: row for row in made.table.rows(["in", "none"], vectors=True)}
        from dataclasses import replace

        made.table.add(
            [
                replace(rows["in"], id=name, media=media)
                for name, media in {
                    "page": "page.html",
                    "dots": "../secret.png",
                    "absolute": "//etc/passwd",
                    "link": "link.png",
                    "gone": "gone.png",
                    "folder": ".",
                }.items()
            ]
        )
    return home


@pytest.fixture(scope="module")
def filled(home: Path) -> Iterator[Running]:
    with running(ServerSettings(keys=(KEY,)), home=home) as found, found.client() as client:
        answer = client.post("/v1/collections", json={"name": "things", "model": "tiny", "instruction": INSTRUCTION})
        assert answer.status_code == 201, answer.text
        items = [{"id": id, "text": text, "metadata": {"year": 2020 + place}} for place, (id, text) in enumerate(TEXTS.items())]
        items += [{"id": id, "image": data_uri(png(seed=seed))} for id, seed in PICTURES.items()]
        answer = client.post("/v1/collections/things/items", json={"items": items})
        assert (answer.status_code, answer.json()) == (201, {"ids": [*TEXTS, *PICTURES]})
        yield found


@pytest.fixture(scope="module")
def caller(filled: Running) -> Iterator[httpx.Client]:
    with filled.client() as found:
        yield found


def search(caller: httpx.Client, **body: object) -> dict:
    answer = caller.post("/v1/search", json={"collection": "things", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(caller: httpx.Client, **body: object) -> tuple[int, str]:
    answer = caller.post("/v1/search", json={"collection": "things", **body})
    return answer.status_code, answer.json()["error"]["message"]


def test_collections_are_listed_with_their_numbers(filled: Running, caller: httpx.Client):
    found = caller.get("/v1/collections").json()
    assert [one["name"] for one in found["data"]] == ["rooted", "things"]
    assert found["rerankers"] == ["judge"]
    things = caller.get("/v1/collections/things").json()
    template = filled.embedder.engine.renderer.template
    assert filled.service.collection("things").settings.template_hash == template.hash
    assert things == found["data"][1]
    assert (things["rows"], things["modalities"], things["fields"]) == (5, {"text": 3, "image": 2}, ["year"])
    assert (things["model"], things["fingerprint"]) == ("tiny", filled.embedder.fingerprint)


def test_searching_is_that_of_the_library(filled: Running, caller: httpx.Client, home: Path):
    with Collection.open(home / "things", filled.embedder) as things:
        picture = png(seed=11)
        for body, arguments in (
            ({"query": "a red ring"}, {"query": "a red ring"}),
            ({"query": {"image": data_uri(picture), "text": "make it blue"}}, {"query": Item.of(image=picture, text="make it blue")}),
            ({"query": "a red ring", "minus": "blue", "k": 2, "offset": 1}, {"query": "a red ring", "minus": "blue", "k": 2, "offset": 1}),
            ({"query": "x", "where": {"year": {"gte": 2021}}}, {"query": "x", "where": {"year": {"gte": 2021}}}),
            (
                {"query": "x", "where": ["year>=2021"], "modalities": ["text"]},
                {"query": "x", "where": ["year>=2021"], "modalities": ["text"]},
            ),
            ({"query": "red circle", "mode": "words"}, {"query": "red circle", "mode": "words"}),
            ({"query": "red circle", "mode": "hybrid"}, {"query": "red circle", "mode": "hybrid"}),
            ({"query": "x", "instruction": ""}, {"query": "x", "instruction": ""}),
            ({"like": "a/2"}, None),
            (
                {"query": "x", "rerank": {"model": "judge", "depth": 3, "weight": 2}},
                {"query": "x", "reranker": filled.reranker, "rerank_depth": 3, "rerank_weight": 2},
            ),
        ):
            expected = things.more_like("a/2") if arguments is None else things.search(**arguments)
            found = search(caller, **body)
            assert [hit["id"] for hit in found["hits"]] == expected.ids, body
            assert found["order"] == expected.order
            for hit, right in zip(found["hits"], expected, strict=True):
                assert hit["scores"] == pytest.approx(dict(right.scores), abs=1e-5)
                assert (hit["rank"], hit["text"], hit["metadata"]) == (right.rank, right.text, dict(right.metadata))
        assert found["reranked"] == 3


def test_weighted_parts_are_added(filled: Running, caller: httpx.Client):
    parts = [{"input": "red circle", "weight": 2}, {"input": {"image": data_uri(png(seed=12))}}]
    found = search(caller, parts=parts, instruction="", k=1)
    vectors = filled.embedder.encode([Item.of(text="red circle"), Item.of(image=png(seed=12))], "query")
    sum_D = 2 * vectors[0] + vectors[1]
    hit = found["hits"][0]
    with Collection.open(filled.service.collection("things").folder, filled.embedder) as things:
        row = things.table.rows([hit["id"]], vectors=True)[0]
    assert hit["score"] == pytest.approx(float(row.vector_D.astype(np.float32) @ sum_D / np.linalg.norm(sum_D)), abs=2e-3)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "nothing to search for"),
        ({"query": "x", "collection": "nowhere"}, 404, "no collection 'nowhere'; it has rooted, things"),
        ({"query": "x", "where": {"year": {"near": 3}}}, 400, "near"),
        ({"query": "x", "modalities": ["smell"]}, 400, "unknown modality"),
        ({"query": "x", "k": 0}, 400, "k: Input should be greater than or equal to 1"),
        ({"query": "x", "depth": 5}, 400, "depth has no effect in mode vector"),
        ({"query": "x", "like": "a/1"}, 400, "query has no effect beside like"),
        ({"like": "nothing"}, 400, "has no row 'nothing'"),
        ({"query": "x", "rerank": {"model": "tiny"}}, 404, "no model 'tiny' that reranks"),
        ({"parts": [{"input": "x"}, {"input": "x", "weight": -1}]}, 400, "cancel each other"),
        ({"query": {"image": "data:image/png;base64,AAAA"}}, 400, "not an image"),
    ],
)
def test_searches_that_make_no_sense_are_refused(caller: httpx.Client, home: Path, body: dict, status: int, message: str):
    found = refusal(caller, **body)
    assert found[0] == status
    assert message in found[1]
    assert str(home) not in found[1]


def test_hits_say_where_their_files_are(caller: httpx.Client):
    hits = {hit["id"]: hit for hit in search(caller, query="x")["hits"]}
    for id, seed in PICTURES.items():
        assert caller.get(hits[id]["media"]).content == png(seed=seed)
        thumbnail = caller.get(hits[id]["thumbnail"])
        assert (thumbnail.headers["content-type"], thumbnail.content[:4]) == ("image/webp", b"RIFF")
        part = caller.get(hits[id]["media"], headers={"Range": "bytes=1-3"})
        assert (part.status_code, part.content) == (206, b"PNG")
    for id in TEXTS:
        assert (hits[id]["media"], hits[id]["thumbnail"]) == (None, None)
        item = caller.get(f"/v1/collections/things/item?id={quote(id, safe='')}").json()
        assert (item["id"], item["text"], item["modality"]) == (id, TEXTS[id], "text")


def test_files_are_those_of_rows_inside_the_collection(caller: httpx.Client):
    def media(id: str) -> httpx.Response:
        return caller.get("/v1/collections/rooted/media", params={"id": id})

    good = media("in")
    assert (good.content, good.headers["content-type"], good.headers["x-content-type-options"]) == (png(seed=5), "image/png", "nosniff")
    for id in ("dots", "absolute", "link", "gone", "folder", "none", "../secret.png", "/etc/passwd", "in.png", ""):
        assert media(id).status_code == 404, id
    page = media("page")
    assert page.headers["content-disposition"].startswith("attachment")
    assert page.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in page.headers["content-security-policy"]
    for path in ("/v1/collections/../media?id=in", "/v1/collections/%2e%2e/media?id=in", "/v1/collections/rooted%2f../media?id=in"):
        assert caller.get(path).status_code == 404


def test_items_are_replaced_and_deleted(caller: httpx.Client):
    path = "/v1/collections/things/items"
    assert caller.post(path, json={"items": [{"id": "new", "text": "one", "metadata": {"n": 1}}]}).status_code == 201
    assert caller.post(path, json={"items": [{"id": "new", "text": "two", "image": data_uri(png(seed=13))}]}).status_code == 201
    item = caller.get("/v1/collections/things/item?id=new").json()
    assert (item["modality"], item["text"], item["metadata"]) == ("image,text", "two", {})
    assert caller.post(f"{path}/delete", json={"ids": ["new", "new", "nothing"]}).json() == {"deleted": 1}
    assert caller.get("/v1/collections/things/item?id=new").status_code == 404
    for body, message in (
        ({"items": [{"id": "x", "text": "a"}, {"id": "x", "text": "b"}]}, "occurs twice"),
        ({"items": [{"text": "a", "metadata": {"deep": {"er": 1}}}]}, "it must be a text"),
        ({"items": [{"text": "a", "metadata": {"n": 1e999}}]}, "finite"),
        ({"items": [{"image": [data_uri(png(seed=1)), data_uri(png(seed=2))]}]}, "holds 2 images"),
        ({"items": [{"id": "x"}]}, "needs a text, an image or a video"),
    ):
        content = json.dumps(body).replace("Infinity", "1e999")
        answer = caller.post(path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert message in answer.json()["error"]["message"]


def test_new_collections_have_names_that_nobody_has(caller: httpx.Client, home: Path):
    for name, status in (
        ("things", 409),
        ("files", 409),
        ("../evil", 400),
        (".hidden", 400),
        ("a/b", 400),
        ("", 400),
        ("x" * 64, 400),
        ("new\n", 400),
    ):
        answer = caller.post("/v1/collections", json={"name": name, "model": "tiny"})
        assert answer.status_code == status, name
    assert caller.post("/v1/collections", json={"name": "other", "model": "judge"}).status_code == 404
    assert sorted(path.name for path in home.iterdir()) == ["files", "rooted", "secret.png", "things"]


def test_a_server_for_searching_alone_changes_nothing(home: Path):
    with running(ServerSettings(), home=home, read_only=True) as found:
        rooted = f"{found.url}/v1/collections/rooted"
        for path, body in (
            (f"{found.url}/v1/collections", {"name": "new", "model": "tiny"}),
            (f"{rooted}/items", {"items": [{"text": "x"}]}),
            (f"{rooted}/items/delete", {"ids": ["in"]}),
        ):
            answer = bare.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "read_only")
        assert len(bare.post(f"{found.url}/v1/search", json={"collection": "rooted", "query": "x", "k": 3}).json()["hits"]) == 3


def test_collections_are_found_by_name(home: Path):
    assert folders_of(["shop=/data/a=b", str(home / "rooted")], None) == {"shop": Path("/data/a=b"), "rooted": home / "rooted"}
    assert set(folders_of([], home)) >= {"rooted"}
    for given in (["x=/a", "x=/b"], [str(home / "rooted"), "rooted=/b"]):
        with pytest.raises(RecipeError, match="two collections"):
            folders_of(given, None)
    with pytest.raises(RecipeError, match="two collections"):
        folders_of(["rooted=/elsewhere"], home)
    with pytest.raises(ModelError, match="no model of this server made its vectors"):
        Collections({}).open(home / "rooted", "rooted")
