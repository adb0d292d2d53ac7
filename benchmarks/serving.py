"""Many concurrent clients of `umr serve` on loopback: latencies, errors, memory, and whether vectors are those of a lone request.

    python benchmarks/serving.py [--clients N] [--seconds N] [--size tiny|small|base] [--queue N] [--warm SECONDS]

A real server in a process of its own, with an embedder, a reranker and a collection of 1,000 texts; clients in this process ask in turn
for one to four vectors (70%), a search (20%) or a reranking (10%), and honour Retry-After. Every answer is compared with that to the same
request asked alone before. Prints a table and writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image

RESULT = Path(__file__).parent / "results" / "serving.json"
WORDS = [
    "red",
    "blue",
    "green",
    "circle",
    "square",
    "ring",
    "star",
    "left",
    "right",
    "top",
    "bottom",
    "center",
    "large",
    "small",
    "striped",
    "scene",
    "with",
    "and",
    "of",
    "the",
]
ROWS = 1000
TOLERANCE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm", type=float, default=5.0)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--queue", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), options.size, options.queue) as (url, process):
        result = asyncio.run(measure(url, process, options))
    print_table(result)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    wrong = {status for status in result["statuses"] if status not in ("200", "429")}
    sys.exit(f"answers of status {sorted(wrong)}" if wrong or result["largest_difference"] > TOLERANCE else 0)


@contextmanager
def served(folder: Path, size: str, queue: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    from umr.models.tiny import make_checkpoint

    make_checkpoint("qwen3-vl", folder / "model", [" ".join(WORDS)] * 40, size)
    words = [sys.executable, "-m", "umr", "serve", "--model", f"m={folder / 'model'}", "--reranker", f"r={folder / 'model'}"]
    words += ["--home", str(folder / "home"), "--port", "0", "--queue", str(queue)]
    (folder / "home").mkdir()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            sys.exit((folder / "log").read_text())
        try:
            yield line.split()[0], process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def requests(rng: random.Random) -> list[tuple[str, str, dict[str, Any]]]:
    """Kind, path and body of 60 different requests."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for _ in range(42):
        inputs = [picture(rng) if rng.random() < 0.2 else text(rng) for _ in range(rng.randint(1, 4))]
        found.append(("embedding", "/v1/embeddings", {"model": "m", "input": inputs}))
    found += [("search", "/v1/search", {"collection": "c", "query": text(rng), "k": 10}) for _ in range(12)]
    for _ in range(6):
        found.append(("reranking", "/v1/rerank", {"model": "r", "query": text(rng), "documents": [text(rng) for _ in range(8)]}))
    return found


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.choice((3, 6, 12, 60))))


def picture(rng: random.Random) -> dict[str, str]:
    side = rng.choice((64, 96, 160))
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).resize((side, side)).save(file, "png")
    return {"image": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}


def values(kind: str, answer: dict[str, Any]) -> np.ndarray:
    """What must not depend on the company."""
    if kind == "embedding":
        return np.array([one["embedding"] for one in answer["data"]])
    if kind == "search":
        return np.array([hit["score"] for hit in answer["hits"]])
    return np.array([one["relevance_score"] for one in sorted(answer["results"], key=lambda one: one["index"])])


async def measure(url: str, process: subprocess.Popen[str], options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(0)
    asked = requests(rng)
    limits = httpx.Limits(max_connections=options.clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as client:
        await fill(client, rng)
        alone = [values(kind, (await client.post(path, json=body)).raise_for_status().json()) for kind, path, body in asked]
        lone = {kind: await lone_latency(client, [one for one in asked if one[0] == kind]) for kind in ("embedding", "search", "reranking")}
        seen = Seen()
        watch = asyncio.create_task(seen.watch(process.pid))
        begins = time.monotonic() + options.warm
        work = [
            ask(client, asked, alone, random.Random(number), begins, begins + options.seconds, seen) for number in range(options.clients)
        ]
        await asyncio.gather(*work)
        watch.cancel()
        metrics = (await client.get("/metrics")).text
    figures = {line.split(" ")[0]: float(line.split(" ")[1]) for line in metrics.splitlines() if line.startswith("umr_batch_rows")}
    rows, batches = figures['umr_batch_rows_sum{model="m"}'], figures['umr_batch_rows_count{model="m"}']
    return {
        "date": date.today().isoformat(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "load": [round(one, 1) for one in os.getloadavg()]},
        "clients": options.clients,
        "seconds": options.seconds,
        "size": options.size,
        "queue": options.queue,
        "requests_per_second": round(sum(map(len, seen.latencies.values())) / options.seconds, 1),
        "statuses": dict(seen.statuses),
        "milliseconds": {kind: percentiles(found) for kind, found in seen.latencies.items()},
        "milliseconds_alone": lone,
        "largest_difference": seen.worst,
        "rows_a_batch": round(rows / batches, 1),
        "memory_mb": {"quarter": seen.memory[len(seen.memory) // 4], "end": seen.memory[-1], "highest": max(seen.memory)},
    }


class Seen:
    """What clients have seen, and the server's memory."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.latencies: dict[str, list[float]] = {"embedding": [], "search": [], "reranking": []}
        self.worst = 0.0
        self.memory: list[int] = []

    async def watch(self, pid: int) -> None:
        while True:
            said = Path(f"/proc/{pid}/status").read_text()
            self.memory.append(int(said.split("VmRSS:")[1].split()[0]) // 1024)
            await asyncio.sleep(1)


async def fill(client: httpx.AsyncClient, rng: random.Random) -> None:
    (await client.post("/v1/collections", json={"name": "c", "model": "m"})).raise_for_status()
    for start in range(0, ROWS, 50):
        items = [{"id": f"{start + number}", "text": text(rng)} for number in range(50)]
        (await client.post("/v1/collections/c/items", json={"items": items})).raise_for_status()


async def lone_latency(client: httpx.AsyncClient, asked: list[tuple[str, str, dict[str, Any]]]) -> float:
    spent = []
    for _, path, body in asked:
        started = time.monotonic()
        (await client.post(path, json=body)).raise_for_status()
        spent.append(time.monotonic() - started)
    return percentiles(spent)["p50"]


async def ask(
    client: httpx.AsyncClient,
    asked: list[tuple[str, str, dict[str, Any]]],
    alone: list[np.ndarray],
    rng: random.Random,
    begins: float,
    ends: float,
    seen: Seen,
) -> None:
    while (started := time.monotonic()) < ends:
        number = rng.randrange(len(asked))
        kind, path, body = asked[number]
        answer = await client.post(path, json=body)
        if answer.status_code == 200:
            seen.worst = max(seen.worst, float(np.abs(values(kind, answer.json()) - alone[number]).max()))
        if started >= begins:
            seen.statuses[str(answer.status_code)] += 1
            if answer.status_code == 200:
                seen.latencies[kind].append(time.monotonic() - started)
        if answer.status_code == 429:
            await asyncio.sleep(float(answer.headers["retry-after"]))


def percentiles(spent: list[float]) -> dict[str, float]:
    return {f"p{part}": round(float(np.percentile(spent, part)) * 1000, 1) for part in (50, 95, 99)} if spent else {}


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def print_table(result: dict[str, Any]) -> None:
    about = result["machine"]
    print(f"\n{result['date']}, {about['cpu']}, {about['cores']} cores, load {about['load']}")
    print(f"{result['clients']} clients for {result['seconds']:g} s, {result['size']} model, queue of {result['queue']} items")
    print(
        f"{result['requests_per_second']} requests/s; answers {result['statuses']}; largest difference {result['largest_difference']:.0e}"
    )
    print(f"{result['rows_a_batch']} rows a batch; memory {result['memory_mb']} MB")
    print(f"\n{'ms':12}{'alone':>10}{'p50':>10}{'p95':>10}{'p99':>10}")
    for kind, row in result["milliseconds"].items():
        print(
            f"{kind:12}{result['milliseconds_alone'][kind]:10.1f}" + "".join(f"{row.get(name, 0):10.1f}" for name in ("p50", "p95", "p99"))
        )


if __name__ == "__main__":
    main()
