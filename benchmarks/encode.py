"""Items a second of `Embedder.encode` against plain sentence-transformers, with the same weights on a mixed corpus.

    python benchmarks/encode.py [--items N] [--runs N] [--size tiny|small|base] [--family FAMILY]

Both sides embed the same in-memory texts and images, taking turns (ours, theirs, ours, theirs, ...), after a check that their
vectors agree. sentence-transformers runs as it comes, with its batches of 32; ours with its default token budget of a CPU. The floor is
the model's multiply-adds on this corpus (`multiply_adds`, nothing padded) at the rate of a large fp32 matrix product measured
in the same process. Prints a table and writes benchmarks/results/encode.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from umr.items import Item
from umr.models.embedder import Embedder
from umr.models.tiny import FAMILIES, SIZES, make_checkpoint
from umr.rendering.renderer import Rendered

RESULT = Path(__file__).parent / "results" / "encode.json"
TOLERANCE = 1e-4
_TEXT = """red blue green circle square ring star left right top bottom center large small striped scene with and of the a photograph
bridge river people season museum species player over under between next behind"""
WORDS = _TEXT.split()
IMAGE_SIZES = [(96, 96), (128, 96), (160, 120), (224, 224), (320, 240), (256, 384), (480, 360)]
KINDS = {"short text": 0.35, "long text": 0.15, "image": 0.3, "image and text": 0.2}

Row = tuple[str, str, PIL.Image.Image | None]
"""Kind, text, image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--family", choices=FAMILIES, default="qwen3-vl")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(Path(temporary), arguments.items, arguments.runs, arguments.size, arguments.family)
    print_table(result)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder: Path, count: int, runs: int, size: str, family: str) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    corpus = make_corpus(count)
    parameters = make_checkpoint(family, folder / "init", [text for _, text, _ in corpus], size)
    ours = Embedder.load(folder / "init", device="cpu")
    if reasons := ours.save(folder / "model"):
        raise SystemExit(f"the model cannot be loaded by sentence-transformers: {reasons}")
    theirs = SentenceTransformer(str(folder / "model"), device="cpu", trust_remote_code=True)

    def run_ours() -> np.ndarray:
        return ours.encode(as_items(corpus))

    def run_theirs() -> np.ndarray:
        return theirs.encode(as_inputs(corpus), show_progress_bar=False)

    difference = float(np.abs(run_ours() - run_theirs()).max())  # also warms both up
    if difference > TOLERANCE:
        raise SystemExit(f"the two give different vectors (by {difference:.1e}); a comparison of their speed would mean nothing")
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    cpu_seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    matrix_rates = [matrix_rate()]
    for _ in range(runs):
        for side, run in (("ours", run_ours), ("theirs", run_theirs)):
            start = time.process_time()
            rates[side].append(count / seconds(run))
            cpu_seconds[side].append(time.process_time() - start)
        matrix_rates.append(matrix_rate())
    rows = ours.engine.prepare(as_items(corpus), "candidate", [None] * count)
    work = sum(multiply_adds(ours.engine.model.network, row) for row in rows)
    floor = count * max(matrix_rates) / work
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "model": {"family": family, "size": size, "parameters": parameters, "dtype": "float32", "kernel": "sdpa"},
        "corpus": describe(corpus, rows),
        "largest_difference": difference,
        "items_per_second": {side: spread(values) for side, values in rates.items()},
        "ratio": spread([mine / other for mine, other in zip(rates["ours"], rates["theirs"], strict=True)]),
        # Steadier than the ratio of rates where other programs run on the same cores.
        "cpu_seconds": {side: spread(values) for side, values in cpu_seconds.items()},
        "cpu_ratio": spread([other / mine for mine, other in zip(cpu_seconds["ours"], cpu_seconds["theirs"], strict=True)]),
        "floor": {
            "multiply_adds": work,
            "matrix_multiply_adds_per_second": round(max(matrix_rates)),
            "items_per_second": round(floor, 1),
            "fraction_ours": round(statistics.median(rates["ours"]) / floor, 3),
            "fraction_theirs": round(statistics.median(rates["theirs"]) / floor, 3),
        },
    }


# --- the corpus


def make_corpus(count: int) -> list[Row]:
    """Rows of every kind in a fixed random order."""
    draw = random.Random(0)
    rows: list[Row] = []
    for kind in draw.choices(list(KINDS), list(KINDS.values()), k=count):
        words = draw.randint(80, 300) if kind == "long text" else draw.randint(3, 14)
        text = "" if kind == "image" else " ".join(draw.choices(WORDS, k=words))
        rows.append((kind, text, draw_image(draw) if "image" in kind else None))
    return rows


def draw_image(draw: random.Random) -> PIL.Image.Image:
    coarse = np.array([[[draw.randrange(256) for _ in range(3)] for _ in range(6)] for _ in range(6)], np.uint8)
    return PIL.Image.fromarray(coarse).resize(draw.choice(IMAGE_SIZES), PIL.Image.Resampling.BICUBIC)


def as_items(corpus: list[Row]) -> list[Item]:
    """Fresh items, so that no content hash is left over from an earlier run."""
    return [Item.of(text=text, image=image) for _, text, image in corpus]


def as_inputs(corpus: list[Row]) -> list[Any]:
    return [text if image is None else image if not text else {"image": image, "text": text} for _, text, image in corpus]


def describe(corpus: list[Row], rows: list[Rendered]) -> dict[str, Any]:
    lengths = sorted(len(row.token_ids_L) for row in rows)
    return {
        "items": len(corpus),
        **{kind: sum(row[0] == kind for row in corpus) for kind in KINDS},
        "tokens": sum(lengths),
        "longest_row": lengths[-1],
        "median_row": lengths[len(lengths) // 2],
        "patches": sum(row.patches for row in rows),
    }


# --- the floor


def multiply_adds(network: Any, row: Rendered) -> int:
    """Multiply-adds of one forward pass over one row alone: every matrix product, and nothing else.

    A linear layer of W weights costs W a token; attention costs, a layer, 2 L^2 times its width (scores, then the weighted sum)
    for L tokens that see each other. Embedding look-ups, norms and activations are left out.
    """
    language, config = network.language_model, network.config.get_text_config()
    length = len(row.token_ids_L)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    total = linear_weights(language.layers) * length + config.num_hidden_layers * 2 * length**2 * head * config.num_attention_heads
    tower = network.visual
    width = tower.patch_embed.proj.weight.shape[0]
    for block in row.blocks:
        frames, patches = block.grid[0], block.grid[1] * block.grid[2]
        total += (linear_weights(tower.blocks) + tower.patch_embed.proj.weight.numel()) * frames * patches
        total += len(tower.blocks) * 2 * frames * patches**2 * width
        mergers = linear_weights(tower.merger) + linear_weights(getattr(tower, "deepstack_merger_list", torch.nn.Identity()))
        total += mergers * frames * patches // tower.spatial_merge_size**2
    return int(total)


def linear_weights(module: torch.nn.Module) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, torch.nn.Linear))


def matrix_rate(dtype: torch.dtype = torch.float32, size: int = 2048, repeats: int = 5) -> float:
    """Multiply-adds a second of a square matrix product, the best of several."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    torch.mm(a, b)
    return size**3 / min(seconds(lambda: torch.mm(a, b)) for _ in range(repeats))


# --- figures


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, Any]:
    rounded = [round(value, 2) for value in values]
    return {"median": round(statistics.median(values), 2), "lowest": min(rounded), "highest": max(rounded), "runs": rounded}


def machine() -> dict[str, Any]:
    import sentence_transformers
    import transformers

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    versions["sentence-transformers"] = sentence_transformers.__version__
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "python": platform.python_version(), **versions}


def print_table(result: dict[str, Any]) -> None:
    about, corpus, floor = result["machine"], result["corpus"], result["floor"]
    print(f"\n{result['date']}, {about['cpu']}, {about['cores']} cores, {about['threads']} threads, torch {about['torch']}")
    model, kinds = result["model"], ", ".join(f"{corpus[kind]} {kind}" for kind in KINDS)
    print(f"{model['family']}, {model['parameters'] / 1e6:.1f} M parameters, fp32; vectors agree to {result['largest_difference']:.0e}")
    print(f"{corpus['items']} items ({kinds}), {corpus['tokens']} tokens, {corpus['patches']} patches")
    print(f"floor: {floor['multiply_adds'] / 1e9:.1f} G multiply-adds at {floor['matrix_multiply_adds_per_second'] / 1e9:.1f} G/s")
    print(f"\n{'':24}{'median':>10}{'lowest':>10}{'highest':>10}{'of the floor':>14}")
    for side, name in (("ours", "Embedder.encode"), ("theirs", "sentence-transformers")):
        row = result["items_per_second"][side]
        print(f"{name:24}{row['median']:10.1f}{row['lowest']:10.1f}{row['highest']:10.1f}{floor['fraction_' + side]:14.1%}  items/s")
    for name in ("ratio", "cpu_ratio"):
        row = result[name]
        print(f"{name.replace('cpu_', 'CPU time, '):24}{row['median']:10.2f}{row['lowest']:10.2f}{row['highest']:10.2f}")


if __name__ == "__main__":
    main()
