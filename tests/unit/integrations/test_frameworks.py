"""LangChain and LlamaIndex, the real packages, over a real collection: their classes give what ours give."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.schema import ImageNode, QueryBundle

from tiny import checkpoint, picture
from umr.errors import MediaError
from umr.integrations import langchain, llama_index
from umr.items import Item
from umr.models.embedder import Embedder
from umr.search.collection import Collection

TEXTS = ["a red circle", "two blue squares", "a green star above a ring"]


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder.load(checkpoint("qwen3-vl"))


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, model: Embedder) -> Collection:
    folder = tmp_path_factory.mktemp("frameworks")
    (folder / "media").mkdir()
    picture(64, 64, 3).save(folder / "media" / "three.png")
    made = Collection.create(folder / "things.umr", model, root=folder / "media")
    items = [Item.of(text=text, id=f"text-{place}") for place, text in enumerate(TEXTS)]
    items.append(Item.of(image=folder / "media" / "three.png", text="the third picture", id="picture"))
    made.add(items, metadata=[{"year": 2020 + place} for place in range(4)])
    return made


def test_langchain_embeddings_are_the_models_own(model: Embedder, tmp_path: Path):
    embeddings = langchain.UmrEmbeddings(model, "Find it.")
    items = [Item.of(text=text) for text in TEXTS]
    assert np.allclose(embeddings.embed_documents(TEXTS), model.encode(items), atol=1e-5)
    assert np.allclose(embeddings.embed_query("a ring"), model.encode([Item.of(text="a ring")], "query", "Find it.")[0], atol=1e-5)
    assert np.allclose(asyncio.run(embeddings.aembed_query("a ring")), embeddings.embed_query("a ring"))
    picture(64, 64, 5).save(tmp_path / "five.png")
    assert np.allclose(
        embeddings.embed_image([str(tmp_path / "five.png")]), model.encode([Item.of(image=tmp_path / "five.png")]), atol=1e-5
    )
    assert embeddings.embed_documents([]) == []
    with pytest.raises(MediaError, match="empty"):
        embeddings.embed_query("")


def test_langchain_stores_take_them(model: Embedder):
    store = InMemoryVectorStore(langchain.UmrEmbeddings(model))
    store.add_texts(TEXTS)
    similar = model.encode([Item.of(text="a red ring")], "query") @ model.encode([Item.of(text=text) for text in TEXTS]).T
    assert store.similarity_search("a red ring", k=1)[0].page_content == TEXTS[int(similar.argmax())]


def test_langchain_retrieves_what_a_search_finds(collection: Collection):
    found = collection.search("a red circle", k=4)
    retriever = langchain.UmrRetriever(collection=collection, search={"k": 4})
    for documents in (retriever.invoke("a red circle"), asyncio.run(retriever.ainvoke("a red circle"))):
        assert [one.id for one in documents] == [hit.id for hit in found]
        by_id = {one.id: one for one in documents}
        assert by_id["text-0"].page_content == "a red circle" and by_id["text-0"].metadata["year"] == 2020
        assert Path(by_id["picture"].metadata["media"]).name == "three.png"
        assert by_id["picture"].metadata["score"] == pytest.approx(next(hit.score for hit in found if hit.id == "picture"))
    late = langchain.UmrRetriever(collection=collection, search={"where": {"year": {"gte": 2022}}, "modalities": "text"})
    assert [one.id for one in late.invoke("a red circle")] == ["text-2"]


def test_llama_index_embeddings_are_the_models_own(model: Embedder, tmp_path: Path):
    embedding = llama_index.UmrEmbedding(model, "Find it.", embed_batch_size=2)
    items = [Item.of(text=text) for text in TEXTS]
    assert np.allclose(embedding.get_text_embedding_batch(TEXTS), model.encode(items), atol=1e-5)
    query = model.encode([Item.of(text="a ring")], "query", "Find it.")[0]
    assert np.allclose(embedding.get_query_embedding("a ring"), query, atol=1e-5)
    assert np.allclose(asyncio.run(embedding.aget_query_embedding("a ring")), query, atol=1e-5)
    picture(64, 64, 5).save(tmp_path / "five.png")
    vector = model.encode([Item.of(image=tmp_path / "five.png")])[0]
    sources = [str(tmp_path / "five.png"), io.BytesIO((tmp_path / "five.png").read_bytes())]
    assert np.allclose(embedding.get_image_embedding_batch(sources), [vector, vector], atol=1e-5)
    assert embedding.model_name == model.fingerprint


def test_llama_index_retrieves_what_a_search_finds(collection: Collection):
    found = collection.search("a red circle", k=4)
    retriever = llama_index.UmrRetriever(collection, k=4)
    for nodes in (retriever.retrieve("a red circle"), asyncio.run(retriever.aretrieve("a red circle"))):
        assert [(one.node.node_id, one.score) for one in nodes] == [(hit.id, pytest.approx(hit.score)) for hit in found]
        shown = next(one.node for one in nodes if one.node.node_id == "picture")
        assert isinstance(shown, ImageNode) and Path(shown.image_path or "").name == "three.png" and shown.metadata["year"] == 2023
    image = collection.search(Item.of(text="a red circle", image=Path(shown.image_path or "")), k=4)
    asked = QueryBundle("a red circle", image_path=shown.image_path)
    assert [one.node.node_id for one in retriever.retrieve(asked)] == [hit.id for hit in image]
