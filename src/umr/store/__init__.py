"""Vectors on disk with their ids, resumable writing, and exact search over them."""

from umr.store.embedding import embed_into
from umr.store.topk import ArrayRows, Rows, exact_topk
from umr.store.vectors import VectorStore
from umr.store.view import VectorView, locate

__all__ = ["ArrayRows", "Rows", "VectorStore", "VectorView", "embed_into", "exact_topk", "locate"]
