"""How long one query takes in vectors of which less is kept: measured, here and now, by the two steps of `umr.store.smaller`.

Everything is in memory, and one query is asked at a time, as a server is. fp16 and int8 are widened block by block for matrix products
of torch, with its threads; signs are compared by NumPy, with one. An engine that is made for one of these forms is faster than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from umr.evaluation.embeddings import QueryVectors
from umr.evaluation.searches import Searches, Target
from umr.models.shorter import shorten
from umr.protocols import Vectors
from umr.reports.costs import Cost, chosen_rows
from umr.store import Rows
from umr.store.quantiser import Codes, Precision, Quantiser, sample_rows
from umr.store.smaller import RESCORED

QUERIES = 50
"""Queries that are timed, after a few that are not."""
BYTES = 1 << 29
"""Memory that candidates take in fp16; of a larger pool so many are searched."""
_UNTIMED = 5
_BLOCK = 4096  # candidates widened at a time

Places: TypeAlias = npt.NDArray[np.int64]
Half: TypeAlias = npt.NDArray[np.float16]
Search: TypeAlias = Callable[[Vectors], Places]
Way: TypeAlias = tuple[int, Precision, bool]


@dataclass(frozen=True)
class Latencies:
    """What was measured.

    Attributes:
        setting: whose queries and pool: that with the largest pool.
        candidates: how many were searched.
        milliseconds: median of a query, by dimension, precision, and whether the whole vectors put the best in order.
    """

    setting: str
    candidates: int
    milliseconds: dict[Way, float]


def measure(
    searches: Searches, queries: Mapping[str, QueryVectors], targets: Mapping[tuple[str, str], Target], costs: list[Cost]
) -> Latencies:
    """Time every way to search that `costs` has.

    Args:
        searches: what was searched.
        queries: by setting.
        targets: by setting and pool.
        costs: whose dimensions and precisions are meant.
    """
    pool = searches.names[0]
    setting = max((one.name for one in searches.settings), key=lambda name: len(targets[name, pool].pool))
    vectors, asked = targets[setting, pool].vectors, queries[setting]
    count = min(len(vectors), max(1, BYTES // (2 * vectors.dimension)))
    whole_ND = _read(vectors, count)
    queries_QD = asked.store.take(chosen_rows(asked, QUERIES))
    ways: list[Way] = list(dict.fromkeys((one.dimension, one.precision, one.rescored) for one in costs))
    found: dict[Way, float] = {}
    with searches.timed("timing searches", len(ways), "ways") as bar:
        for way in ways:
            found[way] = _median(_search_of(whole_ND, vectors.fingerprint, way, searches.depth), queries_QD)
            bar.advance(1)
    return Latencies(setting, count, found)


def _read(rows: Rows, count: int) -> Half:
    whole_ND = np.empty((count, rows.dimension), np.float16)
    for start in range(0, count, _BLOCK):
        whole_ND[start : start + _BLOCK] = rows.read(start, min(start + _BLOCK, count))
    rows.release()
    return whole_ND


def _median(search: Search, queries_QD: Vectors) -> float:
    """Milliseconds of a query."""
    for query_D in queries_QD[:_UNTIMED]:
        search(query_D)
    taken = []
    for query_D in queries_QD:
        start = time.perf_counter()
        search(query_D)
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


def _search_of(whole_ND: Half, fingerprint: str, way: Way, depth: int) -> Search:
    """A search for one whole query: rows, best first."""
    dimension, precision, rescored = way
    count = min(max(RESCORED, depth), len(whole_ND))
    if precision == "fp16":
        kept = [shorten(some_BD.astype(np.float32), dimension).astype(np.float16) for some_BD in _blocks(whole_ND)]
        first = _by_products(np.concatenate(kept), np.ones(dimension, np.float32), count)
        return _ordered(first, whole_ND) if rescored else first
    quantiser = Quantiser.fit(whole_ND[sample_rows(len(whole_ND))].astype(np.float32), precision, fingerprint, dimension)
    codes = np.concatenate([quantiser.codes(some_BD.astype(np.float32)) for some_BD in _blocks(whole_ND)])
    if precision == "int8":
        first = _by_products(codes, quantiser.step_D, count)
        return _ordered(first, whole_ND) if rescored else first
    first = _by_signs(codes, quantiser, count)
    return _ordered(first, whole_ND) if rescored else _ordered(first, codes, quantiser)


def _blocks(rows_ND: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    return (rows_ND[start : start + _BLOCK] for start in range(0, len(rows_ND), _BLOCK))


def _by_products(kept_ND: npt.NDArray[Any], step_D: Vectors, count: int) -> Search:
    """What is the same for all candidates, a center, is left out."""
    import torch

    blocks = [torch.from_numpy(some_BD) for some_BD in _blocks(kept_ND)]

    def search(query_D: Vectors) -> Places:
        asked_D = torch.from_numpy(shorten(query_D[None], len(step_D))[0] * step_D)
        return np.asarray(torch.cat([block.float() @ asked_D for block in blocks]).topk(count).indices.numpy())

    return search


def _by_signs(codes_NB: Codes, quantiser: Quantiser, count: int) -> Search:
    words_WN = _words(codes_NB)

    def search(query_D: Vectors) -> Places:
        far_N = np.zeros(words_WN.shape[1], np.uint16)
        for word_1, column_N in zip(_words(quantiser.codes(query_D[None])), words_WN, strict=True):
            far_N += np.bitwise_count(column_N ^ word_1)
        rows = np.flatnonzero(far_N <= np.partition(far_N, count - 1)[count - 1])
        return rows[np.argsort(far_N[rows], kind="stable")[:count]]

    return search


def _words(codes_NB: Codes) -> npt.NDArray[np.uint64]:
    """Signs in words of 64, filled up with zeros; the words of a row lie apart, so that each step goes through memory in order."""
    missing = -codes_NB.shape[1] % 8
    return np.ascontiguousarray(np.pad(codes_NB, ((0, 0), (0, missing))).view(np.uint64).T)


def _ordered(first: Search, source_ND: npt.NDArray[Any], quantiser: Quantiser | None = None) -> Search:
    """What `first` finds, in the order of rows in memory, or of what codes in memory stand for."""

    def search(query_D: Vectors) -> Places:
        rows = first(query_D)
        found_RD = source_ND[rows].astype(np.float32) if quantiser is None else quantiser.vectors(source_ND[rows])
        return rows[np.argsort(-(found_RD @ shorten(query_D[None], found_RD.shape[1])[0]), kind="stable")]

    return search
