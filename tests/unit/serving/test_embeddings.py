"""OpenAI's and Cohere's embeddings, asked for by their official clients, against `Embedder.encode`."""

import base64
import io

import cohere
import httpx
import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from umr.items import Image, Item, Text
from umr.serving.addresses import PublicNetwork
from umr.serving.fetching import Fetcher
from umr.serving.quantising import as_base64, as_type
from umr.serving.settings import UrlSettings
from unit.serving.live_server import KEY, Running
from unit.serving.test_addresses import Web
from unit.serving.test_addresses import answer as sent

TOLERANCE = 1e-5
TEXTS = ["a red circle", "blue ring center", "two of them moving over the scene, " * 6]


def png(width: int = 64, height: int = 64, seed: int = 1) -> bytes:
    file = io.BytesIO()
    tiny.picture(width, height, seed).save(file, "png")
    return file.getvalue()


def data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def ai(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def co(server: Running) -> cohere.ClientV2:
    return cohere.ClientV2(api_key=KEY, base_url=server.url)


def post(client: httpx.Client, **body: object) -> dict:
    answer = client.post("/v1/embeddings", json={"model": "tiny", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def vectors(found: dict) -> np.ndarray:
    return np.array([one["embedding"] for one in found["data"]], np.float32)


def refusal(client: httpx.Client, **body: object) -> str:
    answer = client.post("/v1/embeddings", json={"model": "tiny", **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error["message"]


@pytest.mark.parametrize("encoding", [openai.NOT_GIVEN, "float", "base64"])
def test_openai_client_gets_the_embedders_vectors(server: Running, ai: openai.OpenAI, encoding):
    found = ai.embeddings.create(model="tiny", input=TEXTS, encoding_format=encoding, user="someone")
    values = [np.frombuffer(base64.b64decode(one.embedding), "<f4") if encoding == "base64" else one.embedding for one in found.data]
    expected = server.embedder.encode([Item.of(text=text) for text in TEXTS])
    np.testing.assert_allclose(np.array(values), expected, atol=TOLERANCE)
    assert [one.index for one in found.data] == [0, 1, 2]
    rows = server.embedder.engine.prepare([Item.of(text=text) for text in TEXTS], "candidate", [None] * 3)
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(len(row.token_ids_L) for row in rows)


def test_openai_client_gets_shorter_vectors_of_unit_length(server: Running, ai: openai.OpenAI):
    found = ai.embeddings.create(model="tiny", input="a red circle", dimensions=16)
    whole = server.embedder.encode([Item.of(text="a red circle")])[0, :16]
    np.testing.assert_allclose(found.data[0].embedding, whole / np.linalg.norm(whole), atol=TOLERANCE)
    with pytest.raises(openai.BadRequestError, match="no vectors of 17 components; it has 16, 128"):
        ai.embeddings.create(model="tiny", input="a red circle", dimensions=17)


def test_openai_client_lists_models_and_learns_of_unknown_ones(server: Running, ai: openai.OpenAI):
    assert [model.id for model in ai.models.list()] == ["tiny", "judge"]
    assert ai.models.retrieve("tiny").fingerprint == server.embedder.fingerprint
    with pytest.raises(openai.NotFoundError, match="no model 'text-embedding-3-small' that embeds; it has tiny"):
        ai.embeddings.create(model="text-embedding-3-small", input="x")
    with pytest.raises(openai.BadRequestError, match="token ids are not accepted"):
        ai.embeddings.create(model="tiny", input=[[1, 2], [3]])


def test_images_come_as_objects(server: Running, client: httpx.Client):
    image, other = png(), png(96, 64, 2)
    found = post(
        client,
        input=[
            {"image": data_uri(image)},
            {"image": data_uri(image), "text": "make it blue"},
            {"image": [data_uri(image), data_uri(other)]},
            {"content": [{"type": "text", "text": "before"}, {"type": "image_url", "image_url": {"url": data_uri(image)}}]},
            "a text",
        ],
    )
    items = [
        Item.of(image=image),
        Item.of(image=image, text="make it blue"),
        Item.of(images=[image, other]),
        Item((Text("before"), Image(image))),
        Item.of(text="a text"),
    ]
    np.testing.assert_allclose(vectors(found), server.embedder.encode(items), atol=TOLERANCE)


def test_videos_come_as_objects(server: Running, client: httpx.Client, tmp_path):
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in tiny.film(4):
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    found = post(client, input={"video": "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode(), "text": "moving"})
    np.testing.assert_allclose(vectors(found), server.embedder.encode([Item.of(video=path, text="moving")]), atol=TOLERANCE)


def test_images_come_from_addresses_where_that_is_allowed(server: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    web = Web({"93.184.215.14": sent(png()), "1.1.1.1": sent(b"<svg/>")})

    async def resolve(name: str, port: int) -> list[str]:
        return {"e.org": ["93.184.215.14"], "f.org": ["1.1.1.1"], "inside.org": ["10.0.0.1"]}.get(name, [])

    monkeypatch.setattr(server.service.reader, "_fetcher", Fetcher(UrlSettings(), PublicNetwork(resolve, web)))
    found = post(client, input=[{"image": "http://e.org/1.png"}, {"image": "http://e.org/1.png", "text": "make it blue"}])
    expected = server.embedder.encode([Item.of(image=png()), Item.of(image=png(), text="make it blue")])
    np.testing.assert_allclose(vectors(found), expected, atol=TOLERANCE)
    assert web.called == ["93.184.215.14"], "an address that is named twice is fetched once"
    assert "is not an image" in refusal(client, input=[{"image": "http://f.org/1.png"}]), "its content decides, not its name"
    assert "not on the public internet" in refusal(client, input=["x", {"image": "http://inside.org/1.png"}])
    assert server.service.gate.bytes == 0


def test_queries_have_a_side_and_an_instruction(server: Running, client: httpx.Client):
    item = Item.of(text="a red circle")
    plain = vectors(post(client, input="a red circle", input_type="query"))
    told = vectors(post(client, input="a red circle", input_type="query", instruction=tiny.INSTRUCTION))
    np.testing.assert_allclose(plain, server.embedder.encode([item], "query"), atol=TOLERANCE)
    np.testing.assert_allclose(told, server.embedder.encode([item], "query", tiny.INSTRUCTION), atol=TOLERANCE)
    assert np.abs(plain - told).max() > 1e-3
    assert "instructions belong to queries" in refusal(client, input="x", instruction="find it")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": ""}, "is empty"),
        ({"input": []}, "input: List should have at least 1 item"),
        ({"input": [1, 2, 3]}, "token ids are not accepted"),
        ({"input": ["a", 7]}, "input.1: an input is a text, or an object"),
        ({"input": [{}]}, "input.0: an item needs a text, an image or a video"),
        ({"input": [{"image": "/etc/passwd"}]}, "input.0.image: String should match"),
        ({"input": [{"image": "data:image/png;base64,!!!!"}]}, "damaged base64"),
        ({"input": [{"image": "data:image/png;base64,aGVsbG8="}]}, "is not an image"),
        ({"input": [{"image": "https://example.org/1.png"}]}, "fetches nothing from addresses"),
        ({"input": ["x", {"video": "data:video/mp4;base64,aGVsbG8="}]}, "video 1: is not a video"),
        ({"input": "x", "dimension": 3}, "dimension: Extra inputs are not permitted"),
        ({"input": "x", "input_type": "passage"}, "input_type: Input should be 'query' or 'document'"),
        ({"input": ["x"] * 513}, "at most 512 are allowed"),
        ({"input": "x" * 200_001}, "at most 200000 characters"),
    ],
)
def test_what_cannot_be_embedded_is_said(client: httpx.Client, body: dict, message: str):
    assert message in refusal(client, **body)


@pytest.mark.parametrize("body", [b"{", b'{"model": "\\ud800", "input": "x"}', b'{"a": NaN}', b"[" * 10_000, b"\xff\xfe"])
def test_what_is_not_json_is_said(client: httpx.Client, body: bytes):
    answer = client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]["message"]


def test_a_form_of_a_web_page_is_no_request(client: httpx.Client):
    # browsers send such bodies to any host without asking it first
    answer = client.post("/v1/embeddings", content=b'{"model": "tiny", "input": "x"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400


def test_cohere_client_gets_every_type(server: Running, co: cohere.ClientV2):
    kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    found = co.embed(model="tiny", input_type="search_document", texts=TEXTS, embedding_types=kinds)
    expected = server.embedder.encode([Item.of(text=text) for text in TEXTS])
    np.testing.assert_allclose(np.array(found.embeddings.float_), expected, atol=TOLERANCE)
    for kind in kinds[1:5]:
        near = np.abs(np.array(getattr(found.embeddings, kind)) - np.array(as_type(expected, kind)))
        assert near.max() <= (1 if "int" in kind else 0)
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(found.embeddings.base64[1]), "<f4"), expected[1], atol=TOLERANCE)
    assert found.texts == TEXTS


def test_cohere_client_asks_for_sides_images_and_content(server: Running, co: cohere.ClientV2):
    image = png()
    query = co.embed(model="tiny", input_type="search_query", texts=["a red circle"], embedding_types=["float"], output_dimension=16)
    expected = server.embedder.encode([Item.of(text="a red circle")], "query")[0, :16]
    np.testing.assert_allclose(query.embeddings.float_[0], expected / np.linalg.norm(expected), atol=TOLERANCE)
    images = co.embed(model="tiny", input_type="search_document", images=[data_uri(image)], embedding_types=["float"])
    np.testing.assert_allclose(np.array(images.embeddings.float_), server.embedder.encode([Item.of(image=image)]), atol=TOLERANCE)
    parts = [{"type": "text", "text": "before"}, {"type": "image_url", "image_url": {"url": data_uri(image)}}]
    mixed = co.embed(model="tiny", input_type="search_document", inputs=[{"content": parts}], embedding_types=["float"])
    item = Item((Text("before"), Image(image)))
    np.testing.assert_allclose(np.array(mixed.embeddings.float_), server.embedder.encode([item]), atol=TOLERANCE)


def test_cohere_client_learns_what_is_wrong(server: Running, co: cohere.ClientV2):
    with pytest.raises(cohere.BadRequestError) as both:
        co.embed(model="tiny", input_type="search_query", texts=["a"], images=[data_uri(png())], embedding_types=["float"])
    assert both.value.body["message"].endswith("give exactly one of texts, images and inputs")
    with pytest.raises(cohere.NotFoundError):
        co.embed(model="embed-v4.0", input_type="search_query", texts=["a"], embedding_types=["float"])
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2(api_key="another-key-than-it", base_url=server.url).embed(
            model="tiny", input_type="search_query", texts=["a"], embedding_types=["float"]
        )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=12, max_size=12), min_size=1, max_size=4))
def test_quantised_vectors_mean_what_they_say(rows: list[list[float]]):
    vectors_ND = np.array(rows, np.float32)
    assert [np.frombuffer(base64.b64decode(one), "<f4").tolist() for one in as_base64(vectors_ND)] == vectors_ND.tolist()
    int8_ND = np.array(as_type(vectors_ND, "int8"))
    largest_N1 = np.abs(vectors_ND).max(1, keepdims=True)
    np.testing.assert_allclose(int8_ND / 127 * largest_N1, vectors_ND, atol=float(largest_N1.max()) / 127)
    assert (np.array(as_type(vectors_ND, "uint8")) == int8_ND + 128).all()
    ubinary_NB = np.array(as_type(vectors_ND, "ubinary"), np.uint8)
    assert (np.unpackbits(ubinary_NB, axis=1)[:, :12] == (vectors_ND > 0)).all()
    assert (np.array(as_type(vectors_ND, "binary")) == ubinary_NB.astype(int) - 128).all()
