"""What `umr embed` costs beside the forward pass: preparing images, reading a manifest, writing pieces, many of them, and opening a store.

    python benchmarks/embed.py [--rows N] [--dimension D] [--pieces N]

The model is replaced by one that has its vectors already, so every second counted is ours. Rows are embedded in pieces of 4096 by this
process; then a second store takes in that many pieces of one row each, for what grows with their number. Images are JPEGs of noise smoothed
as photos are, decoded, resized and cut into patches for Qwen2-VL with its own pixel budget. CPU seconds, since the disk and whatever else
the machine does change the others. Prints JSON and writes it to benchmarks/results/embed.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from umr.bulk.embed import embed
from umr.items import Item, Side
from umr.models.embedder import Embedder
from umr.models.tiny import make_checkpoint
from umr.store.pieces import Pieces
from umr.store.shard_files import shard_contents
from umr.store.vectors import VectorStore

SIZES = ((256, 256, 48), (640, 480, 16), (1920, 1080, 6))
"""Width, height and number of images."""
MIN_PIXELS, MAX_PIXELS = 3136, 12_845_056  # as Qwen2-VL's processor comes
RESULT = Path(__file__).parent / "results" / "embed.json"
SENTENCE = "a photograph of the old bridge over the river in the evening, with people on both sides of it"


class Ready:
    """Has its vectors already."""

    fingerprint = "ready"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._vectors_ND = np.random.default_rng(0).normal(size=(2048, dimension)).astype(np.float32)

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: object = None) -> np.ndarray:
        return self._vectors_ND[: len(items)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--pieces", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.rows, arguments.dimension, arguments.pieces)
    text = json.dumps(result, indent=2)
    print(text)
    RESULT.write_text(text + "\n")


def measure(folder: Path, rows: int, dimension: int, pieces: int) -> dict[str, Any]:
    manifest = folder / "corpus.jsonl"
    with manifest.open("w") as file:
        file.writelines(json.dumps({"id": f"{number // 1000}:{number}", "text": f"{SENTENCE} {number}"}) + "\n" for number in range(rows))
    wall, cpu, counts = timed(lambda: embed(manifest, lambda device: Ready(dimension), folder / "store"))
    assert counts.embedded == rows
    many = open_store(folder / "many", dimension)
    vectors_ND = np.ones((1, dimension), np.float32)
    for number in range(pieces):
        Pieces(many.path).put(number, 1, shard_contents(number, [f"0:{number}"], ["text"], vectors_ND))
    with many.writing():
        wall_commit, cpu_commit, _ = timed(lambda: Pieces(many.path).commit(many))
    _, cpu_open, opened = timed(lambda: VectorStore(many.path))
    assert opened.shards == pieces
    return {
        "date": date.today().isoformat(),
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version()},
        "preparing": [preparing(folder / "model", *size) for size in SIZES],
        "rows": rows,
        "dimension": dimension,
        "embedding": {"seconds": wall, "cpu_seconds": cpu, "cpu_seconds_per_million": cpu / rows * 1e6},
        "manifest_line_bytes": manifest.stat().st_size / rows,
        "vector_bytes_per_row": total(folder / "store", "*.npy") / rows,
        "id_bytes_per_row": total(folder / "store", "*.parquet") / rows,
        "pieces": pieces,
        "commit": {"seconds": wall_commit, "cpu_seconds": cpu_commit, "cpu_milliseconds_per_shard": cpu_commit / pieces * 1e3},
        "opening": {"cpu_seconds": cpu_open, "cpu_milliseconds_per_shard": cpu_open / pieces * 1e3},
        "manifest_bytes_per_shard": (many.path / "manifest.json").stat().st_size / pieces,
    }


def preparing(folder: Path, width: int, height: int, count: int) -> dict[str, Any]:
    """What an image costs before the forward pass, without threads."""
    if not folder.exists():
        make_checkpoint("qwen2-vl", folder, [SENTENCE])
    engine: Any = Embedder.load(folder, max_tokens=16384, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS).engine
    rng = np.random.default_rng(0)
    small = [PIL.Image.fromarray(rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)) for _ in range(count)]
    items = [Item.of(image=jpeg(image.resize((width, height), PIL.Image.Resampling.BICUBIC))) for image in small]
    engine.prepare(items[:1], "candidate", [None])
    _, cpu, rows = timed(lambda: engine.prepare(items, "candidate", [None] * count))
    return {
        "width": width,
        "height": height,
        "images": count,
        "cpu_milliseconds_per_image": cpu / count * 1e3,
        "tokens": len(rows[0].token_ids_L),
        "patches": rows[0].patches,
    }


def jpeg(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="jpeg", quality=90)
    return buffer.getvalue()


def open_store(path: Path, dimension: int) -> VectorStore:
    return VectorStore.create_or_resume(path, fingerprint="ready", dimension=dimension)


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds by the clock, seconds of this process' CPU time, and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def total(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def processor() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
