"""Training and evaluation data on disk: the M-BEIR layout, sentence pairs, captions, and the generated World."""

from umr.data.instructions import Instructions, choose
from umr.data.mbeir import MBeir, Setting
from umr.data.mbeir_pool import Pool
from umr.data.mbeir_queries import Queries
from umr.data.mbeir_records import TASKS, MBeirQuery, normalise_text
from umr.data.pairs import CaptionPairs, PairRow, TextPairs

__all__ = [
    "TASKS",
    "CaptionPairs",
    "Instructions",
    "MBeir",
    "MBeirQuery",
    "PairRow",
    "Pool",
    "Queries",
    "Setting",
    "TextPairs",
    "choose",
    "normalise_text",
]
