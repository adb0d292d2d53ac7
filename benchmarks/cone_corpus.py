"""Rows of four modalities, each about a mean of its own, with the filters that are asked for and the right answers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from umr.search.filters import Filter
from umr.search.lance import ROWS, LanceTable
from umr.search.scoring import widen

SHARES = {"text": 0.4, "image": 0.3, "image,text": 0.2, "video": 0.1}
MEANINGS, BLOCK, K = 1000, 16_384, 10
TENTH = (100, 350)  # meanings, from the most frequent on, that a tenth of the rows have
THUMBNAIL = 2000  # bytes


@dataclass
class Corpus:
    """Vectors in row order, and what filters look at."""

    vectors_ND: np.ndarray
    modality_N: np.ndarray
    meaning_N: np.ndarray
    tenth_N: np.ndarray
    queries_QD: np.ndarray


@dataclass
class Case:
    """One kind of filter: as we, LanceDB and faiss are told of it."""

    name: str
    where: Filter | None
    modalities: list[str] | None
    sql: str | None
    passing_N: np.ndarray | None


def make(arguments: argparse.Namespace) -> Corpus:
    """Unit vectors: a meaning, a variation of it, and the modality's mean; the spectrum falls as 1/i in a random basis."""
    draw = np.random.default_rng(0)
    dimension = arguments.dimension
    spectrum_D = (1 / np.sqrt(np.arange(1, dimension + 1))).astype(np.float32)
    spectrum_D /= np.linalg.norm(spectrum_D)
    basis_DD = np.linalg.qr(draw.standard_normal((dimension, dimension)))[0].astype(np.float32)
    meanings_MD = draw.standard_normal((MEANINGS, dimension), np.float32) * spectrum_D
    means = {modality: unit(draw.standard_normal((1, dimension), np.float32)) * arguments.gap for modality in SHARES}
    often_M = 1 / np.arange(1, MEANINGS + 1)
    modality_N = draw.choice(list(SHARES), arguments.rows, p=list(SHARES.values()))
    meaning_N = draw.choice(MEANINGS, arguments.rows, p=often_M / often_M.sum())

    def vectors(modality: np.ndarray, meaning: np.ndarray) -> np.ndarray:
        varied = meanings_MD[meaning] + 0.6 * draw.standard_normal((len(meaning), dimension), np.float32) * spectrum_D
        return unit(varied @ basis_DD + np.concatenate([means[one] for one in modality]))

    vectors_ND = np.empty((arguments.rows, dimension), np.float16)
    for start in range(0, arguments.rows, BLOCK):
        some = slice(start, start + BLOCK)
        vectors_ND[some] = vectors(modality_N[some], meaning_N[some])
    asked = draw.choice(MEANINGS, arguments.queries, p=often_M / often_M.sum())
    queries_QD = vectors(np.full(arguments.queries, "text"), asked)
    return Corpus(vectors_ND, modality_N, meaning_N, draw.integers(10, size=arguments.rows), queries_QD)


def unit(wide_ND: np.ndarray) -> np.ndarray:
    return wide_ND / np.linalg.norm(wide_ND, axis=1, keepdims=True)


def cases_of(corpus: Corpus) -> list[Case]:
    low, high = TENTH
    meanings = (corpus.meaning_N >= low) & (corpus.meaning_N < high)
    # LanceDB is asked about columns of its own, of the right type, which it filters more quickly than our JSON text.
    return [
        Case("no filter", None, None, None, None),
        Case("random tenth", Filter.parse({"tenth": 3}), None, "tenth = 3", corpus.tenth_N == 3),
        Case(
            "whole meanings", Filter.parse({"meaning": {"gte": low, "lt": high}}), None, f"meaning >= {low} AND meaning < {high}", meanings
        ),
        Case("another modality", None, ["video"], "modality = 'video'", corpus.modality_N == "video"),
    ]


def exact(corpus: Corpus, case: Case) -> list[set[str]]:
    """Ids of the ten best of each query, by matrix products over all that passes."""
    rows = np.arange(len(corpus.vectors_ND)) if case.passing_N is None else np.flatnonzero(case.passing_N)
    best_QK = np.full((len(corpus.queries_QD), K), -np.inf, np.float32)
    rows_QK = np.full(best_QK.shape, -1)
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        scores_QB = np.concatenate([best_QK, corpus.queries_QD @ widen(corpus.vectors_ND[some]).T], axis=1)
        numbers_QB = np.concatenate([rows_QK, np.broadcast_to(some, (len(rows_QK), len(some)))], axis=1)
        order = np.argpartition(-scores_QB, K, axis=1)[:, :K]
        best_QK, rows_QK = np.take_along_axis(scores_QB, order, 1), np.take_along_axis(numbers_QB, order, 1)
    return [{name(row) for row in one.tolist()} for one in rows_QK]


def name(row: int) -> str:
    return f"{row:08d}"


def load(folder: Path, corpus: Corpus) -> LanceTable:
    """Make the collection; with the fields that filters ask for once as metadata, and once as columns for LanceDB."""
    import lancedb

    dimension = corpus.vectors_ND.shape[1]
    table = LanceTable.create(folder, dimension)
    rows = lancedb.connect(folder).open_table(ROWS)
    rows.add_columns([pa.field("tenth", pa.int64()), pa.field("meaning", pa.int64())])
    rows.add(pa.RecordBatchReader.from_batches(rows.schema, batches(corpus, rows.schema)))
    return table


def batches(corpus: Corpus, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    count, dimension = corpus.vectors_ND.shape
    noise = np.random.default_rng(1).bytes(2 * THUMBNAIL)
    for start in range(0, count, BLOCK):
        numbers = range(start, min(start + BLOCK, count))
        some = slice(start, numbers[-1] + 1)
        tenth, meaning = corpus.tenth_N[some].tolist(), corpus.meaning_N[some].tolist()
        columns = {
            "id": [name(number) for number in numbers],
            "source": [f"photos/2026/{name(number)}.jpg" for number in numbers],
            "modality": corpus.modality_N[some].tolist(),
            "digest": [f"{number:064x}" for number in numbers],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(corpus.vectors_ND[some].reshape(-1)), dimension),
            "metadata": [f'{{"meaning":{one},"tenth":{other}}}' for one, other in zip(meaning, tenth, strict=True)],
            "text": [f"one of the pictures that mean what number {one} means, taken on a day like any other" for one in meaning],
            "media": [f"photos/2026/{name(number)}.jpg" for number in numbers],
            "thumbnail": [noise[number % THUMBNAIL :][:THUMBNAIL] for number in numbers],
            "tenth": tenth,
            "meaning": meaning,
            **{field: [None] * len(numbers) for field in ("page", "start", "end")},
            "changed": [0] * len(numbers),
        }
        yield pa.RecordBatch.from_pydict(columns, schema=wanted)
