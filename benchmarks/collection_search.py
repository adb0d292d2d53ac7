"""Search in a collection: ours, LanceDB's own and one faiss index, over the same vectors in four modality cones.

    python benchmarks/collection_search.py [--rows N] [--dimension D] [--queries N] [--gap LENGTH] [--folder DIR]

Rows of four modalities share meanings, and each modality lies about a mean of its own, `--gap` long where meanings have length 1. Queries
are vectors of the text cone with noise. They are asked without a filter, with one that a random tenth of the rows passes, with one that
whole meanings pass (together about a tenth), and for videos alone, which lie in another cone. Recall is against an exact search by matrix
products. Every other side is set up as its documentation says, and tried with several settings; shown is the first that reaches a recall
of 0.95 without a filter, as one would set it, and what this setting does under the filters. Latency is one query after the other,
throughput is as many threads as processors. Prints a table and writes it, with JSON, to benchmarks/results/collection_search.*.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from encode import machine

from umr.search.filters import Filter
from umr.search.flat import widen
from umr.search.lance import ROWS, LanceTable
from umr.search.lance_rows import schema
from umr.store import resident

RESULT = Path(__file__).parent / "results" / "collection_search"
SHARES = {"text": 0.4, "image": 0.3, "image,text": 0.2, "video": 0.1}
MEANINGS, BLOCK, K, ENOUGH = 1000, 16_384, 10, 0.95
TENTH = (100, 350)  # meanings, from the most frequent on, that a tenth of the rows have

Ids = list[str]
Ask = Callable[[np.ndarray], Ids]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--gap", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of throughput")
    parser.add_argument("--folder", type=Path, help="where the collection is made; by default a temporary folder")
    parser.add_argument("--only-ours", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        result = measure(Path(temporary) / "collection", arguments)
    text = table_of(result)
    print(text)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    RESULT.with_suffix(".txt").write_text(text + "\n")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    corpus = make(arguments)
    cases = cases_of(corpus)
    truth = {case.name: exact(corpus, case) for case in cases}
    table, loading = timed(lambda: load(folder, corpus))
    sides: list[dict[str, Any]] = []
    if not arguments.only_ours:
        sides += [lancedb_side(folder, corpus, cases, truth, arguments)]
        if importlib.util.find_spec("faiss"):
            sides += [faiss_side(corpus, cases, truth, arguments)]
    sides.insert(0, our_side(table, corpus, cases, truth, arguments))
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "load": os.getloadavg(),
        "rows": arguments.rows,
        "dimension": arguments.dimension,
        "gap": arguments.gap,
        "k": K,
        "loading_seconds": loading,
        "sides": sides,
    }


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
    for start in range(0, count, BLOCK):
        numbers = range(start, min(start + BLOCK, count))
        some = slice(start, numbers[-1] + 1)
        tenth, meaning = corpus.tenth_N[some].tolist(), corpus.meaning_N[some].tolist()
        empty = {field.name: [b"" if field.name == "thumbnail" else ""] * len(numbers) for field in schema(dimension)}
        columns = empty | {
            "id": [name(number) for number in numbers],
            "modality": corpus.modality_N[some].tolist(),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(corpus.vectors_ND[some].reshape(-1)), dimension),
            "metadata": [f'{{"meaning":{one},"tenth":{other}}}' for one, other in zip(meaning, tenth, strict=True)],
            "tenth": tenth,
            "meaning": meaning,
            **{field: [None] * len(numbers) for field in ("page", "start", "end")},
            "changed": [0] * len(numbers),
        }
        yield pa.RecordBatch.from_pydict(columns, schema=wanted)


def our_side(table: LanceTable, corpus: Corpus, cases: list[Case], truth: dict[str, list[set[str]]], arguments: Any) -> dict[str, Any]:
    before = resident()
    _, building = timed(lambda: table.nearest(corpus.queries_QD[:1], K))

    def ask(case: Case) -> Ask:
        return lambda query_D: [near.id for near in table.nearest(query_D[None], K, case.where, case.modalities)[0]]

    found = {case.name: tried(ask(case), corpus, truth[case.name], arguments.seconds) for case in cases}
    assert table._tier is not None
    return {
        "name": "umr",
        "setting": "as calibrated",
        "build_seconds": building,
        "grown_mb": (resident() - before) / 1e6,
        "stats": table._tier.stats(),
        "cases": found,
    }


def lancedb_side(folder: Path, corpus: Corpus, cases: list[Case], truth: dict[str, list[set[str]]], arguments: Any) -> dict[str, Any]:
    import lancedb
    from lancedb.index import BTree, IvfRq

    rows = lancedb.connect(folder).open_table(ROWS)
    _, building = timed(lambda: rows.create_index("vector", config=IvfRq(distance_type="cosine", num_bits=1)))
    for column in ("tenth", "meaning", "modality"):
        rows.create_index(column, config=BTree())

    def ask(case: Case, probes: int | None) -> Ask:
        def one(query_D: np.ndarray) -> Ids:
            search = (
                rows.search(query_D, vector_column_name="vector")
                .distance_type("cosine")
                .limit(K)
                .refine_factor(10)
                .select(["id", "_distance"])
            )
            search = search if probes is None else search.nprobes(probes)
            return (search if case.sql is None else search.where(case.sql, prefilter=True)).to_arrow()["id"].to_pylist()

        return one

    settings = [None, 10, 20, 50, 100, 200]
    chosen = first_enough([(probes, ask(cases[0], probes)) for probes in settings], corpus, truth[cases[0].name])
    found = {case.name: tried(ask(case, chosen), corpus, truth[case.name], arguments.seconds) for case in cases}
    setting = f"IVF_RQ, nprobes {chosen or 'not set'}, refine 10"
    return {"name": "LanceDB", "setting": setting, "build_seconds": building, "cases": found}


def faiss_side(corpus: Corpus, cases: list[Case], truth: dict[str, list[set[str]]], arguments: Any) -> dict[str, Any]:
    """One index over everything, as one would make it: IVF with RaBitQ codes, rescored from fp16."""
    import faiss

    count, dimension = corpus.vectors_ND.shape
    lists = min(2 * int(count**0.5), count // 40)
    index = faiss.index_factory(dimension, f"IVF{lists},RaBitQ,Refine(SQfp16)", faiss.METRIC_INNER_PRODUCT)

    def build() -> None:
        index.train(widen(corpus.vectors_ND[:: max(1, count // (lists * 40))]))
        for start in range(0, count, BLOCK):
            index.add(widen(corpus.vectors_ND[start : start + BLOCK]))

    _, building = timed(build)

    def ask(case: Case, probes: int) -> Ask:
        cells = {"nprobe": probes}
        if case.passing_N is not None:
            cells["sel"] = faiss.IDSelectorBitmap(np.packbits(case.passing_N, bitorder="little"))
        settings = faiss.IndexRefineSearchParameters(k_factor=20, base_index_params=faiss.SearchParametersIVF(**cells))
        return lambda query_D: [name(row) for row in index.search(query_D[None], K, params=settings)[1][0].tolist() if row >= 0]

    chosen = first_enough([(n, ask(cases[0], n)) for n in (4, 8, 16, 32, 64, 128, 256) if n <= lists], corpus, truth[cases[0].name])
    found = {case.name: tried(ask(case, chosen), corpus, truth[case.name], arguments.seconds) for case in cases}
    return {"name": "faiss, one index", "setting": f"IVF{lists},RaBitQ,fp16; nprobe {chosen}", "build_seconds": building, "cases": found}


def first_enough(asks: list[tuple[Any, Ask]], corpus: Corpus, truth: list[set[str]]) -> Any:
    """The first setting that finds enough without a filter; the last where none does."""
    for setting, ask in asks:
        if recall([ask(query_D) for query_D in corpus.queries_QD], truth) >= ENOUGH:
            return setting
    return asks[-1][0]


def tried(ask: Ask, corpus: Corpus, truth: list[set[str]], seconds: float) -> dict[str, float]:
    found = [ask(query_D) for query_D in corpus.queries_QD]  # warms up, too
    times = [timed(lambda query_D=query_D: ask(query_D))[1] for query_D in corpus.queries_QD]
    return {
        "recall": recall(found, truth),
        "p50_ms": 1000 * float(np.percentile(times, 50)),
        "p99_ms": 1000 * float(np.percentile(times, 99)),
        "queries_per_second": throughput(ask, corpus.queries_QD, seconds),
    }


def recall(found: list[Ids], truth: list[set[str]]) -> float:
    return float(np.mean([len(set(ids) & true) / len(true) for ids, true in zip(found, truth, strict=True)]))


def throughput(ask: Ask, queries_QD: np.ndarray, seconds: float) -> float:
    """Queries answered a second, by as many threads as there are processors."""
    counts, end = [0] * (os.cpu_count() or 1), time.perf_counter() + seconds

    def client(number: int) -> None:
        while time.perf_counter() < end:
            ask(queries_QD[(counts[number] * len(counts) + number) % len(queries_QD)])
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(counts))]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    return work(), time.perf_counter() - begin


def table_of(result: dict[str, Any]) -> str:
    about = result["machine"]
    lines = [
        f"{result['date']}, {about['cpu']}, {about['cores']} cores, load {result['load'][0]:.1f} when it ended",
        f"{result['rows']} rows x {result['dimension']}, four modality cones, gap {result['gap']}, k = {result['k']}",
    ]
    for side in result["sides"]:
        lines += ["", f"{side['name']} ({side['setting']}), built in {side['build_seconds']:.1f} s"]
        lines.append(f"{'':20}{'recall@10':>10}{'p50 ms':>10}{'p99 ms':>10}{'queries/s':>12}")
        for case, one in side["cases"].items():
            lines.append(f"{case:20}{one['recall']:10.3f}{one['p50_ms']:10.2f}{one['p99_ms']:10.2f}{one['queries_per_second']:12.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
