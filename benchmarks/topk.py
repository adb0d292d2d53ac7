"""Exact search: ours against faiss flat and a plain blocked NumPy search, and against what memory and arithmetic allow.

    python benchmarks/topk.py [--candidates N] [--dimension D] [--queries N ...] [--k K] [--runs N]

All search the same unit vectors for the same queries, taking turns, after a check that they find the same candidates (faiss and
NumPy score in single precision alone, so the last few may change places). Ours reads fp16 from a store on disk ("ours"), which is half
the bytes, and fp32 in memory ("ours, in memory"), which is what the others read. One query at a time is bound by memory: the limit is
the bytes of the candidates over the measured read bandwidth. Many queries are bound by arithmetic: the limit is 2 Q N D operations at
the rate of a large matrix product, in the precision that ours takes for its first scoring (bfloat16 in long searches where the CPU has
it). faiss takes part where it is installed: pip install faiss-cpu. Prints a table and writes benchmarks/results/topk.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from encode import machine
from limits import limits

from umr.store import ArrayRows, VectorStore, default_engine, exact_topk

RESULT = Path(__file__).parent / "results" / "topk.json"
SHARD = 4096
BLOCK = 8192

Found = tuple[np.ndarray, np.ndarray]
Search = Callable[[np.ndarray, int], Found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 1000, 10000])
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    if importlib.util.find_spec("faiss") is None:
        print("faiss is not installed and left out; to compare with it: pip install faiss-cpu")
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(Path(temporary), arguments)
    print_table(result)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    store, vectors_ND = make(folder, arguments.candidates, arguments.dimension)
    sides = searches(store, vectors_ND)
    able = limits()
    rows = [compare(sides, vectors_ND, count, arguments.k, arguments.runs, able) for count in arguments.queries]
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "limits": able,
        "candidates": arguments.candidates,
        "dimension": arguments.dimension,
        "k": arguments.k,
        "batches": rows,
    }


def make(folder: Path, count: int, dimension: int) -> tuple[VectorStore, np.ndarray]:
    """Random unit vectors, in a store and as the store gives them."""
    draw = np.random.default_rng(0)
    store = VectorStore.create_or_resume(folder / "store", fingerprint="random", dimension=dimension)
    for start in range(0, count, SHARD):
        ids = [str(number) for number in range(start, min(start + SHARD, count))]
        store.append(ids, ["text"] * len(ids), draw.standard_normal((len(ids), dimension), np.float32))
    return store, store.read(0, count)


def searches(store: VectorStore, vectors_ND: np.ndarray) -> dict[str, Search]:
    memory = ArrayRows(vectors_ND)
    sides: dict[str, Search] = {
        "ours": lambda queries, k: exact_topk(queries, store, k),
        "ours, in memory": lambda queries, k: exact_topk(queries, memory, k),
        "NumPy": lambda queries, k: numpy_search(queries, vectors_ND, k),
    }
    if importlib.util.find_spec("faiss") is not None:
        import faiss

        index = faiss.IndexFlatIP(vectors_ND.shape[1])
        index.add(vectors_ND)
        sides["faiss"] = lambda queries, k: index.search(queries, k)[::-1]
    return sides


def numpy_search(queries: np.ndarray, vectors_ND: np.ndarray, k: int) -> Found:
    """What one writes in ten lines: products in blocks, the k best of each by partition, and of those at the end."""
    kept: list[Found] = []
    for start in range(0, len(vectors_ND), BLOCK):
        scores = queries @ vectors_ND[start : start + BLOCK].T
        rows = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
        kept.append((rows + start, np.take_along_axis(scores, rows, 1)))
    rows, scores = (np.concatenate(part, axis=1) for part in zip(*kept, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def compare(sides: dict[str, Search], vectors_ND: np.ndarray, count: int, k: int, runs: int, able: dict[str, Any]) -> dict[str, Any]:
    draw = np.random.default_rng(1)
    queries = draw.standard_normal((count, vectors_ND.shape[1]), np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    first = {name: search(queries, k) for name, search in sides.items()}  # warms up, too
    expected = first["ours"][0]
    agreement = {
        name: round(float(np.mean([len(np.intersect1d(*pair)) / k for pair in zip(expected, rows, strict=True)])), 6)
        for name, (rows, _) in first.items()
    }
    if min(agreement.values()) < 0.999:
        raise SystemExit(f"they do not find the same candidates ({agreement}); a comparison of their speed would mean nothing")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, search in sides.items():
            start = time.perf_counter()
            search(queries, k)
            times[name].append(time.perf_counter() - start)
    reading = {name: vectors_ND.size * (2 if name == "ours" else 4) / able["read"] for name in sides}
    half = default_engine(count * vectors_ND.size).half
    operations = 2 * count * vectors_ND.size
    arithmetic = {name: operations / able["matrix_half" if half and name.startswith("ours") else "matrix"] for name in sides}
    return {
        "queries": count,
        "precision": "bfloat16" if half else "float32",
        "agreement": agreement,
        "seconds": {name: figures(values) for name, values in times.items()},
        "limit_seconds": {"reading": reading, "arithmetic": arithmetic},
        "share_of_limit": {name: max(reading[name], arithmetic[name]) / min(values) for name, values in times.items()},
    }


def figures(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "lowest": min(seconds), "highest": max(seconds)}


def print_table(result: dict[str, Any]) -> None:
    about, able = result["machine"], result["limits"]
    print(f"\n{result['date']}, {about['cpu']}, {about['cores']} cores, {able['threads']} threads")
    print(
        f"reads {able['read'] / 1e9:.1f} GB/s, copies {able['copy'] / 1e9:.1f} GB/s, multiplies {able['matrix'] / 1e9:.0f} GFLOP/s (fp32), "
        f"{able['matrix_half'] / 1e9:.0f} (bfloat16)"
    )
    print(f"{result['candidates']} candidates, {result['dimension']} dimensions, k = {result['k']}")
    for row in result["batches"]:
        limit = row["limit_seconds"]
        bound = "memory" if limit["reading"]["NumPy"] > limit["arithmetic"]["NumPy"] else "arithmetic"
        print(f"\nqueries at once: {row['queries']}; bound by {bound}; ours proposes in {row['precision']}")
        print(f"{'':20}{'median':>10}{'lowest':>10}{'highest':>10}{'of limit':>12}")
        for name, values in row["seconds"].items():
            line = "".join(f"{1000 * values[key]:10.1f}" for key in ("median", "lowest", "highest"))
            print(f"{name:20}{line} ms{100 * row['share_of_limit'][name]:8.0f} %")


if __name__ == "__main__":
    main()
