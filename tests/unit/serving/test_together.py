"""Many clients at once get the vectors that each would get alone, and the OpenAPI document holds what it promises."""

import copy
import random
import threading
import time

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

import tiny
from umr.items import Item
from unit.serving.live_server import KEY, Running
from unit.serving.test_embeddings import data_uri, png

CLIENTS, SECONDS = 16, 3.0
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_many_clients_get_what_each_would_get_alone(server: Running):
    pictures = [png(seed=seed) for seed in range(4)]
    inputs = [*tiny.TEXTS[:5], "two of them moving over the scene, " * 9, *({"image": data_uri(one)} for one in pictures)]
    items = [*(Item.of(text=one) for one in inputs[:6]), *(Item.of(image=one) for one in pictures)]
    expected = server.embedder.encode(items)
    judged = server.reranker.score(Item.of(text="a red thing"), items)
    statuses: list[int] = []
    worst: list[float] = []
    ends = time.monotonic() + SECONDS

    def work(number: int) -> None:
        rng = random.Random(number)
        with server.client() as client:
            while time.monotonic() < ends:
                chosen = rng.choices(range(len(items)), k=rng.randint(1, 4))
                if rng.random() < 0.8:
                    answer = client.post("/v1/embeddings", json={"model": "tiny", "input": [inputs[one] for one in chosen]})
                    found = [one["embedding"] for one in answer.json().get("data", [])]
                    right = expected[chosen]
                else:
                    body = {"model": "judge", "query": "a red thing", "documents": [inputs[one] for one in chosen]}
                    answer = client.post("/v1/rerank", json=body)
                    places = {one["index"]: one["relevance_score"] for one in answer.json().get("results", [])}
                    found, right = [places[place] for place in sorted(places)], judged[chosen]
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    worst.append(float(np.abs(np.array(found) - right).max()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 429}
    assert len(worst) >= CLIENTS
    assert max(worst) <= 1e-5
    counted = server.service.metrics.registry.get_sample_value
    rows, batches = counted("umr_batch_rows_sum", {"model": "tiny"}), counted("umr_batch_rows_count", {"model": "tiny"})
    assert rows > 1.5 * batches, "requests were not computed together"
    assert server.service.gate.items == server.service.gate.bytes == 0


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict:
    return client.get("/openapi.json").json()


def test_the_document_is_complete(document: dict):
    wanted = {"/v1/embeddings", "/v1/models", "/v1/models/{model}", "/v1/rerank", "/v2/embed", "/v2/rerank", "/healthz/live", "/metrics"}
    wanted |= {"/v1/search", "/v1/collections", *(f"/v1/collections/{{name}}{rest}" for rest in ("", "/items", "/items/delete", "/media"))}
    assert wanted <= set(document["paths"])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert operation["description"]
            for status, response in operation["responses"].items():
                schemas = [one["schema"] for one in response["content"].values()]
                assert all(schemas), f"{path} {status} has no schema"
            if not path.startswith("/healthz"):
                assert {"400", "401", "413", "429", "500", "503", "504"} <= set(operation["responses"])
                assert operation["security"] == [{"key": []}]


def test_whatever_is_sent_gets_an_answer_of_the_document(server: Running, document: dict):
    schema = schemathesis.openapi.from_dict(_with_names_that_exist(document))
    schema.config.update(base_url=server.url)
    statuses: set[int] = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case) -> None:
            answer = case.call(headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
            statuses.add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        check()
    assert {200, 400} <= statuses


def _with_names_that_exist(document: dict) -> dict:
    """The document with the server's own names in place of any text, so that requests get beyond the first check."""
    document = copy.deepcopy(document)
    for schema in document["components"]["schemas"].values():
        for field, names in {"model": ["tiny", "judge"], "collection": ["things"]}.items():
            if schema.get("properties", {}).get(field, {}).get("type") == "string":
                schema["properties"][field]["enum"] = names
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "name":
                    parameter["schema"]["enum"] = ["things"]
    return document
