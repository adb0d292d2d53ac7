"""Vectors on disk with their ids, resumable writing, and exact search over them."""

from umr.store.asked import Among, Asked
from umr.store.budget import parse_bytes, resident, size_text
from umr.store.embedding import embed_into
from umr.store.passes import TooLittle
from umr.store.quantiser import Quantiser
from umr.store.rows import ArrayRows, Laid, Rows
from umr.store.saved import Saved
from umr.store.scanning import Cpu, Device, Engine, default_engine
from umr.store.small_store import SmallStore
from umr.store.streaming import Streaming
from umr.store.topk import exact_topk
from umr.store.vectors import VectorStore
from umr.store.view import VectorView, locate

__all__ = [
    "Among",
    "ArrayRows",
    "Asked",
    "Cpu",
    "Device",
    "Engine",
    "Laid",
    "Quantiser",
    "Rows",
    "Saved",
    "SmallStore",
    "Streaming",
    "TooLittle",
    "VectorStore",
    "VectorView",
    "default_engine",
    "embed_into",
    "exact_topk",
    "locate",
    "parse_bytes",
    "resident",
    "size_text",
]
