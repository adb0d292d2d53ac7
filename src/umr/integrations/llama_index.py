"""LlamaIndex: an embedder as a multimodal embedding, a collection as a retriever. Needs the extra `llama-index`."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.schema import ImageNode, ImageType, NodeWithScore, QueryBundle, TextNode
from pydantic import PrivateAttr

from umr.integrations.fields import fields_of
from umr.items import Item
from umr.protocols import Encoder
from umr.search.collection import Collection
from umr.search.hits import Hit, Results


class UmrEmbedding(MultiModalEmbedding):
    """Any of our embedders, or any SentenceTransformer through `Embedder.load`.

    Args:
        encoder: the model.
        instruction: what queries are asked with.
        more: as of `BaseEmbedding`, such as `embed_batch_size`.
    """

    _encoder: Encoder = PrivateAttr()
    _instruction: str | None = PrivateAttr()

    def __init__(self, encoder: Encoder, instruction: str | None = None, **more: Any) -> None:
        super().__init__(model_name=encoder.fingerprint, **more)
        self._encoder, self._instruction = encoder, instruction

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex writes it down."""
        return "UmrEmbedding"

    def _embed(self, items: list[Item]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode(items).tolist()
        return vectors

    def _get_query_embedding(self, query: str) -> list[float]:
        return [float(value) for value in self._encoder.encode([Item.of(text=query)], "query", self._instruction)[0]]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([Item.of(text=text)])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed([Item.of(text=text) for text in texts])

    def _get_image_embedding(self, img_file_path: ImageType) -> list[float]:
        return self._embed([_picture(img_file_path)])[0]

    def _get_image_embeddings(self, img_file_paths: list[ImageType]) -> list[list[float]]:
        return self._embed([_picture(source) for source in img_file_paths])

    async def _aget_image_embedding(self, img_file_path: ImageType) -> list[float]:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)


def _picture(source: ImageType) -> Item:
    return Item.of(image=source.getvalue() if isinstance(source, io.BytesIO) else Path(source))


class UmrRetriever(BaseRetriever):
    """A collection as a retriever. A query bundle with an `image_path` searches by the picture, with its text if it has one.

    A picture comes as `ImageNode` with its text, anything else as `TextNode`; metadata is as in `fields_of`.

    Args:
        collection: what is searched.
        search: further arguments of `Collection.search`: `k`, `where`, `mode`, `reranker`, `instruction`...
    """

    def __init__(self, collection: Collection, **search: Any) -> None:
        super().__init__()
        self.collection, self.search = collection, search

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self.collection.search(_wanted(query_bundle), **self.search))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(await self.collection.asearch(_wanted(query_bundle), **self.search))


def _wanted(bundle: QueryBundle) -> Item:
    return Item.of(text=bundle.query_str, image=Path(bundle.image_path) if bundle.image_path else None)


def _nodes(results: Results) -> list[NodeWithScore]:
    return [NodeWithScore(node=_node(hit), score=hit.score) for hit in results]


def _node(hit: Hit) -> TextNode:
    about: dict[str, Any] = {"id_": hit.id, "text": hit.text, "metadata": fields_of(hit)}
    if hit.media is not None and hit.modality in ("image", "image,text") and hit.page is None:
        return ImageNode(image_path=str(hit.media), **about)
    return TextNode(**about)
