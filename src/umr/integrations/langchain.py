"""LangChain: an embedder as `Embeddings`, a collection as a retriever. Needs the extra `langchain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from umr.integrations.fields import fields_of
from umr.items import Item
from umr.protocols import Encoder
from umr.search.collection import Collection
from umr.search.hits import Results


class UmrEmbeddings(Embeddings):
    """Any of our embedders, or any SentenceTransformer through `Embedder.load`.

    Example:
        >>> embeddings = UmrEmbeddings(Embedder.load(Path("model")), "Find a picture of this.")      # doctest: +SKIP
        >>> store = InMemoryVectorStore(embeddings)                                                  # doctest: +SKIP

    Args:
        encoder: the model.
        instruction: what queries are asked with.
    """

    def __init__(self, encoder: Encoder, instruction: str | None = None) -> None:
        self.encoder, self.instruction = encoder, instruction

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of texts that are to be found. Raises `MediaError` for an empty one."""
        return self._embed([Item.of(text=text) for text in texts])

    def embed_query(self, text: str) -> list[float]:
        """Vector of a text that searches, with the instruction. Raises `MediaError` for an empty one."""
        return [float(value) for value in self.encoder.encode([Item.of(text=text)], "query", self.instruction)[0]]

    def embed_image(self, uris: Sequence[str | Path]) -> list[list[float]]:
        """Vectors of pictures that are to be found, under the name that LangChain's multimodal stores look for.

        Args:
            uris: paths of files; addresses are not fetched.

        Raises:
            MediaError: a file cannot be used.
        """
        return self._embed([Item.of(image=Path(uri)) for uri in uris])

    def _embed(self, items: list[Item]) -> list[list[float]]:
        vectors: list[list[float]] = self.encoder.encode(items).tolist() if items else []
        return vectors


class UmrRetriever(BaseRetriever):
    """A collection as a retriever: texts in, documents out.

    A document's `page_content` is the hit's text, empty for a picture without one; `metadata` is as in `fields_of`.

    Example:
        >>> retriever = UmrRetriever(collection=Collection.open("photos.umr"), search={"k": 4, "modalities": "image"})   # doctest: +SKIP
        >>> retriever.invoke("a red boat")[0].metadata["media"]                                                          # doctest: +SKIP

    Attributes:
        collection: what is searched.
        search: further arguments of `Collection.search`: `k`, `where`, `mode`, `reranker`, `instruction`...
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    collection: Collection
    search: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return _documents(self.collection.search(query, **self.search))

    async def _aget_relevant_documents(self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun) -> list[Document]:
        return _documents(await self.collection.asearch(query, **self.search))


def _documents(results: Results) -> list[Document]:
    return [Document(id=hit.id, page_content=hit.text, metadata=fields_of(hit)) for hit in results]
