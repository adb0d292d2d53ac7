"""Training and evaluation data on disk: the M-BEIR layout, text-retrieval sets, pairs, triples, captions, and the generated World."""

from umr.data.benchmark import Benchmark, open_benchmark
from umr.data.instructions import Instructions, choose
from umr.data.mbeir import MBeir, Setting
from umr.data.mbeir_pool import Pool
from umr.data.mbeir_queries import Queries
from umr.data.mbeir_records import TASKS, MBeirQuery, normalise_text
from umr.data.pairs import CaptionPairs, PairRow, TextPairs
from umr.data.text_retrieval import TextRetrieval
from umr.data.triples import Triples

__all__ = [
    "TASKS",
    "Benchmark",
    "CaptionPairs",
    "Instructions",
    "MBeir",
    "MBeirQuery",
    "PairRow",
    "Pool",
    "Queries",
    "Setting",
    "TextPairs",
    "TextRetrieval",
    "Triples",
    "choose",
    "normalise_text",
    "open_benchmark",
]
