"""Search in a collection: ours, LanceDB's own and one faiss index, over the same vectors in four modality cones.

    python benchmarks/collection_search.py [--rows N] [--dimension D] [--queries N] [--gap LENGTH] [--folder DIR]

Rows of four modalities share meanings, and each modality lies about a mean of its own, `--gap` long where meanings have length 1. Queries
are vectors of the text cone with noise. They are asked without a filter, with one that a random tenth of the rows passes, with one that
whole meanings pass (together about a tenth), and for videos alone, which lie in another cone. Recall is against an exact search by matrix
products. `umr` gives ids, as the other sides do; `Collection.search` is a whole search but for the model: what it would give is there
already. Every other side is set up as its documentation says, and tried with several settings; shown is the first that reaches a recall of
0.95 without a filter, as one would set it, and what this setting does under the filters. Latency is one query after the other, throughput
is as many threads as processors. Prints a table and writes it, with JSON, to benchmarks/results/collection_search-ROWS.*.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from cone_corpus import BLOCK, Case, Corpus, K, cases_of, exact, load, make, name
from encode import machine

from umr.items import Item
from umr.protocols import Vectors
from umr.search.collection import Collection
from umr.search.lance import ROWS, LanceTable
from umr.search.scoring import widen
from umr.search.settings import CollectionSettings
from umr.store import resident

RESULTS = Path(__file__).parent / "results"
ENOUGH = 0.95

Ids = list[str]
Ask = Callable[[np.ndarray], Ids]


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
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"collection_search-{arguments.rows}.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / f"collection_search-{arguments.rows}.txt").write_text(text + "\n")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    corpus = make(arguments)
    cases = cases_of(corpus)
    truth = {case.name: exact(corpus, case) for case in cases}
    table, loading = timed(lambda: load(folder, corpus))
    sides = our_sides(table, corpus, cases, truth, arguments)
    if not arguments.only_ours:
        sides.append(lancedb_side(folder, corpus, cases, truth, arguments))
        if importlib.util.find_spec("faiss"):
            sides.append(faiss_side(corpus, cases, truth, arguments))
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "load": os.getloadavg(),
        "rows": arguments.rows,
        "dimension": arguments.dimension,
        "gap": arguments.gap,
        "k": K,
        "loading_seconds": loading,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,  # all sides, corpus and mapped files included
        "sides": sides,
    }


def our_sides(
    table: LanceTable, corpus: Corpus, cases: list[Case], truth: dict[str, list[set[str]]], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Our search for ids, and a whole search for hits."""
    before = resident()
    _, building = timed(lambda: table.nearest(corpus.queries_QD[:1], K))
    again = LanceTable.open(table.folder)
    _, opening = timed(lambda: again.nearest(corpus.queries_QD[:1], K))
    again.close()
    encoder = Prepared(corpus.queries_QD)
    settings = CollectionSettings(model="prepared", fingerprint=encoder.fingerprint, dimension=encoder.dimension)
    collection = Collection(table.folder, settings, table, encoder)
    stages: dict[str, list[float]] = {}

    def ids(case: Case) -> Ask:
        return lambda query_D: [near.id for near in table.nearest(query_D[None], K, case.where, case.modalities)[0]]

    def hits(case: Case) -> Ask:
        def ask(query_D: np.ndarray) -> Ids:
            results = collection.search(encoder.text_of(query_D), where=case.where, modalities=case.modalities, k=K)
            for stage, seconds in results.seconds.items():
                stages.setdefault(f"{case.name}: {stage}", []).append(1000 * seconds)
            return results.ids

        return ask

    nearest = {case.name: tried(ids(case), corpus, truth[case.name], arguments.seconds) for case in cases}
    grown = (resident() - before) / 1e6
    whole = {case.name: tried(hits(case), corpus, truth[case.name], arguments.seconds) for case in cases}
    assert table._tier is not None
    about = {"build_seconds": building, "opening_seconds": opening, "grown_mb": grown, "stats": table._tier.stats()}
    medians = {stage: float(np.median(times)) for stage, times in stages.items()}
    return [
        {"name": "umr", "setting": "as calibrated", **about, "cases": nearest},
        {"name": "umr, Collection.search", "setting": "without the model", "stages_p50_ms": medians, "cases": whole},
    ]


class Prepared:
    """An encoder whose vectors are there already: a query's text is its number."""

    def __init__(self, queries_QD: Vectors) -> None:
        self._queries_QD = queries_QD
        self._number = {query_D.tobytes(): number for number, query_D in enumerate(queries_QD)}
        self.dimension = queries_QD.shape[1]
        self.fingerprint = "prepared"

    def text_of(self, query_D: np.ndarray) -> str:
        return str(self._number[query_D.tobytes()])

    def encode(self, items: Sequence[Item], *_: object) -> Vectors:
        return self._queries_QD[[int(item.text) for item in items]]


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
        f"at most {result['peak_gb']:.1f} GB of memory, for all sides together",
    ]
    for side in result["sides"]:
        built = f", built in {side['build_seconds']:.1f} s" if "build_seconds" in side else ""
        built += f", opened again in {side['opening_seconds']:.1f} s" if "opening_seconds" in side else ""
        lines += ["", f"{side['name']} ({side['setting']}){built}"]
        lines.append(f"{'':20}{'recall@10':>10}{'p50 ms':>10}{'p99 ms':>10}{'queries/s':>12}")
        for case, one in side["cases"].items():
            lines.append(f"{case:20}{one['recall']:10.3f}{one['p50_ms']:10.2f}{one['p99_ms']:10.2f}{one['queries_per_second']:12.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
