"""Peak memory of a distillation step as the lists of candidates grow, with gradient caching and without.

    python benchmarks/distillation_memory.py [--lengths 10 50 200] [--queries N] [--size small] [--chunk-tokens N]

Every measurement is a process of its own: it loads a Qwen3-VL of random weights, renders a batch whose candidates are pictures with
a caption, and takes one step. Reported are the bytes of the rendered rows, which grow with the lists and stay on the host, and
what the step needs beyond them (activations, gradients): on a GPU the allocator's peak, on a CPU the growth of the process.
Prints JSON and writes it to benchmarks/results/distillation_memory.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from umr.items import Item
from umr.losses.temperature import Temperature
from umr.models.embedder import Embedder, RenderedEngine
from umr.models.tiny import make_checkpoint
from umr.training.examples import ListExample
from umr.training.objectives import OwnLists, Retriever
from umr.training.recipe_sections import TrainingSection

RESULT = Path(__file__).parent / "results" / "distillation_memory.json"
CAPTION = "a red circle in the top left of a light picture"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--size", default="small")
    parser.add_argument("--chunk-tokens", type=int, default=1024)
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "LENGTH", "CACHE"), help="one measurement, as JSON on stdout")
    arguments = parser.parse_args()
    if arguments.one:
        model, length, cache = arguments.one
        print(json.dumps(measure(Path(model), int(length), cache == "cached", arguments.queries, arguments.chunk_tokens)))
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint("qwen3-vl", Path(folder) / "model", [CAPTION] * 8, arguments.size)
        for length in arguments.lengths:
            for cache in ("cached", "plain"):
                options = ["--queries", str(arguments.queries), "--chunk-tokens", str(arguments.chunk_tokens)]
                command = [sys.executable, __file__, "--one", str(Path(folder) / "model"), str(length), cache, *options]
                found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))
                print(found[-1])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    result = {"date": date.today().isoformat(), "device": device, "torch": torch.__version__, "size": arguments.size, "steps": found}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def measure(model: Path, length: int, cache: bool, queries: int, chunk_tokens: int) -> dict[str, object]:
    settings = {"batch_size": max(queries, 2), "steps": 1, "learning_rate": 1, "chunk_tokens": chunk_tokens, "gradient_cache": cache}
    engine = Embedder.load(model).engine
    assert isinstance(engine, RenderedEngine)
    module = Retriever(engine.model, Temperature(0.05, learned=True))
    objective = OwnLists(engine.renderer, TrainingSection.model_validate(settings), scored=True)
    draw = np.random.default_rng(0)
    batch = objective.build([_example(number, length, draw) for number in range(queries)])
    rows = sum(block.patches_PC.nbytes for row in batch.rows for block in row.blocks)
    objective.backward(module, objective.build([_example(0, 2, draw)]), nullcontext)  # gradients and workspaces exist from now on
    module.zero_grad(set_to_none=False)
    before = _reset_peak()
    loss = objective.backward(module, batch, nullcontext)
    peak = _peak()
    assert loss.isfinite()
    return {"length": length, "gradient_cache": cache, "rows_bytes": rows, "step_bytes": peak - before}


def _example(number: int, length: int, draw: np.random.Generator) -> ListExample:
    def item(id: str) -> Item:
        pixels = draw.integers(0, 256, (112, 112, 3), dtype=np.uint8)
        return Item.of(image=PIL.Image.fromarray(pixels), text=CAPTION, id=id)

    candidates = tuple(item(f"{number}:{place}") for place in range(length))
    return ListExample(item(f"q{number}"), "Find an image like this.", candidates, draw.uniform(-1, 1, length).astype(np.float32))


def _reset_peak() -> int:
    """Forget the peak so far, and say what is held now."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
