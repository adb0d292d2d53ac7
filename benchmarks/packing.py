"""Rows in one line (`kernel="packed"`) against padded rows (`kernel="sdpa"`), with the same weights on the same mixed corpus.

    python benchmarks/packing.py [--items N] [--runs N] [--size tiny|small|base] [--family FAMILY] [--device cpu|cuda] [--dtype TYPE]

Each task by both in turns (padded, packed, padded, ...), after a check that their vectors agree: forward passes over sorted rows with the
default token budget of the device and with one sixteen times as large, which leaves more padding; and the gradient of a contrastive
step over all items with gradient caching. A last task, with padded rows on both sides: eight questions about each of some images, where
each question's image goes through the vision tower, or each distinct one once a batch. Prints a table and writes
benchmarks/results/packing.json.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode import WORDS, as_items, draw_image, machine, make_corpus, spread

from umr.items import Item
from umr.models import batching
from umr.models.embedder import Embedder
from umr.models.tiny import FAMILIES, SIZES, make_checkpoint
from umr.rendering.renderer import Rendered
from umr.training import gradient_cache

RESULT = Path(__file__).parent / "results" / "packing.json"
KERNELS = ("sdpa", "packed")
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 5e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--family", choices=FAMILIES, default="qwen3-vl")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(Path(temporary) / "model", arguments)
    print_table(result)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    corpus = make_corpus(arguments.items)
    parameters = make_checkpoint(arguments.family, folder, [text for _, text, _ in corpus], arguments.size)
    models = {name: Embedder.load(folder, kernel=name, device=arguments.device, dtype=arguments.dtype) for name in KERNELS}
    items = as_items(corpus)
    rows: Any = models["sdpa"].engine.prepare(items, "candidate", [None] * len(items))
    budget = batching.default_budget(arguments.device)
    difference = float(np.abs(models["sdpa"].encode(items) - models["packed"].encode(items)).max())  # also warms both up
    if difference > TOLERANCE[arguments.dtype]:
        raise SystemExit(f"the two give different vectors (by {difference:.1e}); a comparison of their speed would mean nothing")
    tasks: dict[str, Any] = {}
    for size in (budget, 16 * budget):
        sides = {name: partial(embed, model, rows, size) for name, model in models.items()}
        tasks[f"embed, {size} tokens a batch"] = {"padding_share": padding_share(rows, size)} | compare(sides, arguments.runs)
    sides = {name: partial(step, model, rows, budget) for name, model in models.items()}
    tasks[f"training step, {budget} tokens a chunk"] = {"padding_share": padding_share(rows, budget)} | compare(sides, arguments.runs)
    asked = questions(models["sdpa"], arguments.items // 8)
    sides = {
        "each time": partial(embed, models["sdpa"], each_its_own(asked), budget),
        "once": partial(embed, models["sdpa"], asked, budget),
    }
    tasks["eight questions about each image"] = {"padding_share": padding_share(asked, budget)} | compare(sides, arguments.runs)
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "model": {"family": arguments.family, "size": arguments.size, "parameters": parameters, "dtype": arguments.dtype},
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device,
        "items": len(rows),
        "tokens": sum(len(row.token_ids_L) for row in rows),
        "largest_difference": difference,
        "tasks": tasks,
    }


def compare(sides: Mapping[str, Callable[[], None]], runs: int) -> dict[str, Any]:
    """Time the first side against the second, in turns."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, work in sides.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            work()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    return {
        "seconds": {name: spread(values) for name, values in wall.items()},
        "cpu_seconds": {name: spread(values) for name, values in cpu.items()},
        "ratio": spread([old / new for old, new in zip(*wall.values(), strict=True)]),
        # Steadier than the ratio of times where other programs run on the same cores.
        "cpu_ratio": spread([old / new for old, new in zip(*cpu.values(), strict=True)]),
    }


def padding_share(rows: Sequence[Rendered], budget: int) -> float:
    """Of the tokens of padded batches."""
    lengths = [len(row.token_ids_L) for row in rows]
    padded = [len(chunk) * max(lengths[index] for index in chunk) for chunk in chunks_of(rows, budget)]
    return round(1 - sum(lengths) / sum(padded), 3)


def questions(model: Embedder, images: int) -> list[Rendered]:
    """Eight texts about each of some images."""
    draw = random.Random(1)
    items = []
    for _ in range(images):
        image = draw_image(draw)
        items += [Item.of(text=" ".join(draw.choices(WORDS, k=8)), image=image) for _ in range(8)]
    rows: Any = model.engine.prepare(items, "query", [None] * len(items))
    return list(rows)


def each_its_own(rows: Sequence[Rendered]) -> list[Rendered]:
    """The same rows, whose equal images are not known to be equal."""
    return [replace(row, blocks=tuple(replace(block, digest="") for block in row.blocks)) for row in rows]


def embed(model: Embedder, rows: Sequence[Rendered], budget: int) -> None:
    for chunk in chunks_of(rows, budget):
        engine: Any = model.engine
        engine.forward([rows[index] for index in chunk])


def step(model: Embedder, rows: Sequence[Rendered], budget: int) -> None:
    """The gradient of InfoNCE between the first half of the rows and the second."""
    network, half = model.engine.model, len(rows) // 2

    def loss(u_UD: torch.Tensor) -> torch.Tensor:
        target_B = torch.arange(half, device=u_UD.device)
        return torch.nn.functional.cross_entropy(u_UD[:half] @ u_UD[half : 2 * half].T / 0.05, target_B)

    gradient_cache.backward(rows, chunks_of(rows, budget), network, loss)
    network.zero_grad(set_to_none=True)
    if next(network.parameters()).is_cuda:
        torch.cuda.synchronize()


def chunks_of(rows: Sequence[Rendered], budget: int) -> list[list[int]]:
    return batching.pack([len(row.token_ids_L) for row in rows], budget, [row.patches // 4 for row in rows])


def print_table(result: dict[str, Any]) -> None:
    about, model, device = result["machine"], result["model"], result["device"]
    print(f"\n{result['date']}, {about['cpu']}, {about['cores']} cores, {about['threads']} threads, {device}, torch {about['torch']}")
    print(f"{model['family']}, {model['parameters'] / 1e6:.1f} M parameters, {model['dtype']}")
    print(f"{result['items']} items, {result['tokens']} tokens; vectors agree to {result['largest_difference']:.0e}\n")
    print(f"{'':40}{'padding':>9}{'before s':>10}{'after s':>10}{'ratio':>8}{'CPU':>8}")
    for name, row in result["tasks"].items():
        before, after = (side["median"] for side in row["seconds"].values())
        ratios = f"{row['ratio']['median']:8.2f}{row['cpu_ratio']['median']:8.2f}"
        print(f"{name:40}{row['padding_share']:9.1%}{before:10.2f}{after:10.2f}{ratios}")


if __name__ == "__main__":
    main()
