"""Cohere's and Jina's reranking against `Reranker.score`."""

import cohere
import httpx
import numpy as np

import tiny
from umr.items import Item
from unit.serving.live_server import KEY, Running
from unit.serving.test_embeddings import data_uri, png

DOCUMENTS = ["a red circle top left", "blue ring center", "two of them", "moving over the scene"]


def test_cohere_client_gets_the_rerankers_order(server: Running):
    found = cohere.ClientV2(api_key=KEY, base_url=server.url).rerank(model="judge", query="a red thing", documents=DOCUMENTS, top_n=3)
    expected = server.reranker.score(Item.of(text="a red thing"), [Item.of(text=text) for text in DOCUMENTS])
    order = np.argsort(-expected, kind="stable")[:3]
    assert [result.index for result in found.results] == order.tolist()
    np.testing.assert_allclose([result.relevance_score for result in found.results], expected[order], atol=1e-5)


def test_jinas_shape_takes_media_on_both_sides(server: Running, client: httpx.Client):
    query, shown = png(seed=3), png(seed=4)
    documents = ["a red circle", {"image": data_uri(shown)}, {"image": data_uri(shown), "text": "blue"}]
    body = {"model": "judge", "query": {"image": data_uri(query)}, "documents": documents, "instruction": tiny.INSTRUCTION}
    answer = client.post("/v1/rerank", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    items = [Item.of(text="a red circle"), Item.of(image=shown), Item.of(image=shown, text="blue")]
    expected = server.reranker.score(Item.of(image=query), items, tiny.INSTRUCTION)
    scores = {result["index"]: result["relevance_score"] for result in found["results"]}
    np.testing.assert_allclose([scores[index] for index in range(3)], expected, atol=1e-5)
    assert {result["index"]: result["document"]["text"] for result in found["results"]} == {0: "a red circle", 1: "", 2: "blue"}
    assert found["usage"]["total_tokens"] > 0
    bare = client.post("/v1/rerank", json={**body, "return_documents": False, "top_n": 1}).json()
    assert len(bare["results"]) == 1
    assert "document" not in bare["results"][0]


def test_equal_documents_keep_their_order(client: httpx.Client):
    found = client.post("/v1/rerank", json={"model": "judge", "query": "x", "documents": ["a red circle"] * 3}).json()
    assert [result["index"] for result in found["results"]] == [0, 1, 2]


def test_an_embedder_is_no_reranker(client: httpx.Client):
    answer = client.post("/v1/rerank", json={"model": "tiny", "query": "x", "documents": ["y"]})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "this server has no model 'tiny' that reranks; it has judge"
    answer = client.post("/v2/rerank", json={"model": "tiny", "query": "x", "documents": ["y"]})
    assert (answer.status_code, list(answer.json())) == (404, ["message"])
