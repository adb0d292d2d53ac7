"""How fast and how small the index of a candidate pool as large as M-BEIR's is.

    python benchmarks/mbeir_reader.py [--candidates N] [--accesses N] [--keep DIR]

Writes a pool of that many candidates, indexes it in this process, then looks candidates up at random, before and after the index is
loaded again from disk. Prints JSON and writes it to benchmarks/results/mbeir_reader.json. `peak_rss_bytes` is that of the
whole process, so it bounds what a reader needs; the limit held to is 1 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import tempfile
import time
from datetime import date
from pathlib import Path

from umr.data.mbeir_pool import Pool

M_BEIR_CANDIDATES = 5_609_079
LIMIT_BYTES = 2**30
RESULT = Path(__file__).parent / "results" / "mbeir_reader.json"

_WORDS = ["a", "the", "red", "old", "small", "photograph", "of", "people", "river", "bridge", "museum", "season", "player", "species"]
_MODALITIES = ("text", "image", "image,text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=M_BEIR_CANDIDATES)
    parser.add_argument("--accesses", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, default=None, help="folder for the generated file (default: temporary)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(folder, arguments.candidates, arguments.accesses)
    text = json.dumps(result, indent=2)
    print(text)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(text + "\n")


def measure(folder: Path, candidates: int, accesses: int) -> dict[str, object]:
    path = folder / "mbeir_union_test_cand_pool.jsonl"
    seconds_writing, dids = timed(lambda: write_pool(path, candidates, accesses))
    seconds_building, pool = timed(lambda: Pool(path, folder, "fail"))
    peak_building = peak_rss()
    seconds_loading, pool = timed(lambda: Pool(path, folder, "fail"))
    assert len(pool) == candidates
    seconds_records, _ = timed(lambda: [pool.index[did] for did in dids])
    seconds_items, items = timed(lambda: [pool.item(did).id for did in dids])
    assert items == dids
    seconds_find, _ = timed(lambda: pool.find(dids))
    return {
        "date": date.today().isoformat(),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "python": platform.python_version()},
        "candidates": candidates,
        "file_bytes": path.stat().st_size,
        "index_bytes": sum(file.stat().st_size for file in (folder / ".umr-index").glob("*.npy")),
        "seconds_writing_the_file": round(seconds_writing, 1),
        "seconds_building_the_index": round(seconds_building, 1),
        "seconds_loading_the_index": round(seconds_loading, 4),
        "random_records_per_second": round(accesses / seconds_records),
        "random_items_per_second": round(accesses / seconds_items),
        "ids_found_per_second_at_once": round(accesses / seconds_find),
        "peak_rss_bytes_building": peak_building,
        "peak_rss_bytes": peak_rss(),
        "limit_bytes": LIMIT_BYTES,
        "within_limit": peak_rss() < LIMIT_BYTES,
    }


def write_pool(path: Path, candidates: int, sample: int) -> list[str]:
    """Write the pool line by line, datasets one after the other as in the real file; return a random sample of its dids."""
    draw = random.Random(0)
    chosen = set(draw.sample(range(candidates), min(sample, candidates)))
    dids = []
    texts = [" ".join(draw.choices(_WORDS, k=draw.randint(8, 90))) for _ in range(4096)]
    with path.open("w", encoding="utf-8") as file:
        for i in range(candidates):
            dataset, number = i * 10 // candidates, i
            modality = _MODALITIES[i % 3]
            did = f"{dataset}:{number}"
            text = json.dumps(f"{texts[i % 4096]} {i}") if "text" in modality else "null"
            image = f'"mbeir_images/set{dataset}/{i // 10_000:04d}/{i:08d}.jpg"' if "image" in modality else "null"
            file.write(f'{{"txt": {text}, "img_path": {image}, "modality": "{modality}", "did": "{did}", "src_content": null}}\n')
            if i in chosen:
                dids.append(did)
    draw.shuffle(dids)
    return dids


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
