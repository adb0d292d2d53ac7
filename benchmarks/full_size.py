"""M-BEIR at its real size, read, searched and scored end to end in bounded memory.

    python benchmarks/full_size.py FOLDER [--memory 8GiB] [--scale 1.0] [--dimension D]

Writes a tree with M-BEIR's 16 settings into FOLDER, unless it is there: 5,609,079 candidates and 190 thousand queries, with tiny texts and
without images. An encoder that draws vectors from ids stands in for the model, so that the time is that of reading, storing, searching and
scoring. Every other query has its right answer close by and the others have nothing close by, so that every score is known: hit rates
are 50 %, and the script stops where one is not. Vectors are kept in FOLDER, too: a second run reads them and only searches, and an
interrupted one goes on.

The search is compared with two limits measured in the same process: bytes of vectors read at the bandwidth of memory, and operations at
the rate of a large matrix product in the precision of the first scoring. `peak_rss_bytes` is that of the whole process, whatever it did.
Prints a table and writes benchmarks/results/full_size.json; with another scale than 1, benchmarks/results/full_size_<scale>.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from encode import machine
from limits import limits

from umr.evaluation import EvaluationResult, evaluate, published, searches
from umr.files import write_text
from umr.items import Item, Side
from umr.protocols import Vectors
from umr.store import Streaming, default_engine, parse_bytes

RESULTS = Path(__file__).parent / "results"
# Test queries of the settings in M-BEIR's order, rounded as published.
QUERIES = [20000, 24800, 1700, 2400, 3200, 2500, 20000, 5000, 4800, 2000, 50000, 11000, 6000, 4000, 14700, 17600]
CLOSE = 0.95
DEPTH = 50


@dataclass(frozen=True)
class Setting:
    """One setting: numbers of its candidates and queries begin at `first` and `asked`, so that ids differ within a dataset."""

    name: str
    dataset: int
    modalities: tuple[str, str]
    first: int
    size: int
    asked: int
    queries: int

    def positive(self, query: int) -> int:
        """Number of the right answer of the n-th query; spread over the pool."""
        return self.first + query * 7919 % self.size


def plan_settings(scale: float) -> list[Setting]:
    found: list[Setting] = []
    for declared, queries in zip(published.settings().values(), QUERIES, strict=True):
        before = [one for one in found if one.dataset == declared.dataset_id]
        first, asked = sum(one.size for one in before), sum(one.queries for one in before)
        size, count = max(100, round(scale * declared.pool_size)), 2 * max(5, round(scale * queries / 2))
        found.append(Setting(declared.name, declared.dataset_id, declared.modalities, first, size, asked, count))
    return found


class Drawn:
    """Unit vectors drawn from ids: uniform numbers by hashing (dataset, number, coordinate), the same in every run."""

    def __init__(self, settings: Sequence[Setting], dimension: int) -> None:
        self._settings, self.dimension = settings, dimension
        self.fingerprint = f"drawn from ids, {dimension} dimensions"

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        ids = [tuple(map(int, str(item.id).split(":"))) for item in items]
        if side == "candidate":
            return self._draw(np.array([dataset * 10**8 + number for dataset, number in ids], np.uint64))
        own_ND = self._draw(np.array([10**10 + dataset * 10**8 + number for dataset, number in ids], np.uint64))
        place = [self._place(*one) for one in ids]
        right_ND = self._draw(np.array([one.dataset * 10**8 + one.positive(number) for one, number in place], np.uint64))
        close = np.array([number % 2 == 0 for _, number in place])
        own_ND[close] = CLOSE * right_ND[close] + (1 - CLOSE**2) ** 0.5 * own_ND[close]
        return own_ND

    def _place(self, dataset: int, number: int) -> tuple[Setting, int]:
        one = next(one for one in self._settings if one.dataset == dataset and one.asked <= number < one.asked + one.queries)
        return one, number - one.asked

    def _draw(self, numbers_N: np.ndarray) -> Vectors:
        """SplitMix64 (Steele, Lea and Flood, 2014) of each coordinate's own number."""
        state = numbers_N[:, None] * np.uint64(1 << 16) + np.arange(self.dimension, dtype=np.uint64)
        state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        values_ND = ((state ^ (state >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) / 2**23 - 1
        return np.asarray(values_ND / np.linalg.norm(values_ND, axis=1, keepdims=True), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--memory", default="8GiB")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--dimension", type=int, default=256)
    arguments = parser.parse_args()
    settings, root = plan_settings(arguments.scale), arguments.folder / f"M-BEIR-{arguments.scale:g}"
    seconds_writing = write_tree(root, settings)
    plans = remember_plans()
    start = time.perf_counter()
    encoder = Drawn(settings, arguments.dimension)
    found = evaluate(encoder, root, work_dir=arguments.folder / "work", depth=DEPTH, memory=arguments.memory)
    whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # before limits are measured, which takes memory of its own
    check(found)
    result = report(
        arguments, settings, found, plans[0].plan, {"writing the tree": seconds_writing, **found.seconds, "evaluation": whole}, peak
    )
    print_table(result)
    name = "full_size.json" if arguments.scale == 1 else f"full_size_{arguments.scale:g}.json"
    write_text(RESULTS / name, json.dumps(result, indent=2) + "\n")


# --- the tree


def write_tree(root: Path, settings: Sequence[Setting]) -> float | None:
    """Write the tree, the file of instructions last, so that an interrupted one is written again; seconds, `None` where it is there."""
    table = root / "instructions" / "query_instructions.tsv"
    if table.exists():
        return None
    start = time.perf_counter()
    everything = root / "cand_pool" / "global" / "mbeir_union_test_cand_pool.jsonl"
    everything.parent.mkdir(parents=True, exist_ok=True)
    lines = ["query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1"]
    with everything.open("w") as union:
        for one in settings:
            pool = f"{one.name}_test" if one.name.startswith("mscoco") else one.name
            with create(root / "cand_pool" / "local" / f"mbeir_{pool}_cand_pool.jsonl") as local:
                for line in candidate_lines(one):
                    local.write(line)
                    union.write(line)
            task = one.name.rsplit("_task", 1)[1]
            with create(root / "query" / "test" / f"mbeir_{one.name}_test.jsonl") as file:
                file.writelines(query_lines(one, int(task)))
            with create(root / "qrels" / "test" / f"mbeir_{one.name}_test_qrels.txt") as file:
                for query in range(one.queries):
                    file.write(f"{one.dataset}:{one.asked + query} 0 {one.dataset}:{one.positive(query)} 1 {task}\n")
            lines.append(f"{one.modalities[0]}\t{one.modalities[1]}\t{one.name.rsplit('_task', 1)[0]}\t{one.dataset}\tFind what fits.")
    write_text(table, "\n".join(lines) + "\n")
    return time.perf_counter() - start


def create(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")


def candidate_lines(one: Setting) -> Iterator[str]:
    text = '"A {}."' if "text" in one.modalities[1] else "null"
    image = '"mbeir_images/{}/{}.jpg"' if "image" in one.modalities[1] else "null"
    for number in range(one.first, one.first + one.size):
        content = f'"txt": {text.format(number)}, "img_path": {image.format(one.dataset, number)}'
        yield f'{{{content}, "modality": "{one.modalities[1]}", "did": "{one.dataset}:{number}", "src_content": null}}\n'


def query_lines(one: Setting, task: int) -> Iterator[str]:
    kind = one.modalities[0]
    for query in range(one.queries):
        record = {
            "qid": f"{one.dataset}:{one.asked + query}",
            "query_txt": f"Query {query}." if "text" in kind else None,
            "query_img_path": f"mbeir_images/queries/{one.dataset}/{query}.jpg" if "image" in kind else None,
            "query_modality": kind,
            "pos_cand_list": [f"{one.dataset}:{one.positive(query)}"],
            "neg_cand_list": [],
            "task_id": task,
        }
        yield json.dumps(record) + "\n"


# --- figures


def remember_plans() -> list[Streaming]:
    """The searches that evaluations make from now on."""
    made: list[Streaming] = []
    original = searches.plan

    def remember(*arguments: Any) -> Streaming:
        made.append(original(*arguments))
        return made[-1]

    searches.plan = remember
    return made


def check(found: EvaluationResult) -> None:
    """Half of the queries find their answer first; the others find it by chance, k of N times."""
    for one in found.settings:
        for name, pool in one.pools.items():
            hits, half = round(pool.metrics[one.main_metric] * one.queries / 100), one.queries // 2
            luck = half * int(one.main_metric.rsplit("@", 1)[1]) / pool.size
            if not half <= hits <= half + luck + 5 * luck**0.5 + 1:
                raise SystemExit(f"{one.setting}, {name}: {one.main_metric} counts {hits} of {one.queries} queries, where it must be half")


def report(
    arguments: argparse.Namespace,
    settings: Sequence[Setting],
    found: EvaluationResult,
    plan: Any,
    seconds: dict[str, float | None],
    peak: int,
) -> dict[str, Any]:
    able, dimension = limits(), arguments.dimension
    candidates, queries = sum(one.size for one in settings), sum(one.queries for one in settings)
    reading, searching = 2 * dimension * plan.reads, found.seconds["searching"]
    # A candidate of a local pool is scored once for both pools.
    arithmetic = 2 * dimension * candidates * queries
    half = default_engine(arithmetic // 2).half
    memory = parse_bytes(arguments.memory)
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "limits": able,
        "scale": arguments.scale,
        "settings": len(settings),
        "candidates": candidates,
        "queries": queries,
        "dimension": dimension,
        "depth": DEPTH,
        "memory_bytes": memory,
        "peak_rss_bytes": peak,
        "within_memory": peak <= memory,
        "passes": len(plan.passes),
        "block": plan.shape.block,
        "candidates_read": plan.reads,
        "seconds": {name: None if value is None else round(value, 1) for name, value in seconds.items()},
        "bytes_read": reading,
        "share_of_bandwidth_limit": reading / able["read"] / searching,
        "precision": "bfloat16" if half else "float32",
        "share_of_arithmetic_limit": arithmetic / able["matrix_half" if half else "matrix"] / searching,
        "averages": {pool: round(values["main"], 3) for pool, values in found.averages.items()},
    }


def print_table(result: dict[str, Any]) -> None:
    able = result["limits"]
    print(f"\n{result['date']}, {result['machine']['cpu']}, {result['machine']['cores']} cores, {able['threads']} threads")
    print(f"reads {able['read'] / 1e9:.1f} GB/s")
    print(f"multiplies {able['matrix'] / 1e9:.0f} GFLOP/s (fp32), {able['matrix_half'] / 1e9:.0f} (bfloat16)")
    print(f"{result['candidates']} candidates, {result['queries']} queries, {result['dimension']} dimensions, k = {result['depth']}")
    print(f"passes: {result['passes']}; bytes read: {result['bytes_read'] / 1e9:.2f} GB\n")
    for name, value in result["seconds"].items():
        print(f"{name:28}" + (f"{value:10.1f} s" if value is not None else "  was there"))
    print(f"{'peak memory':28}{result['peak_rss_bytes'] / 2**30:10.2f} GiB of {result['memory_bytes'] / 2**30:.2f} GiB")
    print(f"{'of the bandwidth limit':28}{100 * result['share_of_bandwidth_limit']:10.1f} %")
    print(f"{'of the arithmetic limit':28}{100 * result['share_of_arithmetic_limit']:10.1f} % ({result['precision']})")


if __name__ == "__main__":
    main()
