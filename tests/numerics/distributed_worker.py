"""One of two processes, started by torchrun: a training step on its own share of a batch, and what came out of it as files.

    torchrun --nproc-per-node 2 distributed_worker.py OUT

The gradient is the real trainer's; shares, budgets and settings differ as real ones do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from numerics.contrastive_batch import batch_of, examples, gradients, retriever
from umr.losses.gathered import rank, world_size
from umr.training import recipe as recipes
from umr.training.batches import StepDataset
from umr.training.objectives import Contrastive
from umr.training.plan import Plan
from umr.training.trainer import StageTrainer

SHORTER = {32: 0.5, 8: 2.0}
CASES: dict[str, tuple[dict[str, Any], bool, tuple[int, int]]] = {
    "cached": ({"both_ways": True}, True, (1, 60)),
    "cached, one way, no mask": ({"mask_false_negatives": False}, True, (60, 10_000)),
    "plain": ({"both_ways": False}, False, (10_000, 10_000)),
    "latent attention": ({"both_ways": True}, True, (1, 60)),
    "matryoshka": ({"both_ways": True, "matryoshka": {"dimensions": [*SHORTER], "weights": [*SHORTER.values()]}}, True, (60, 1)),
}
"""Loss settings, gradient caching, and the tokens a chunk of each process: one may have a single chunk, the other many."""


def main(out: Path) -> None:
    from transformers import TrainingArguments

    # First: once connected, transformers lets only one process write a checkpoint.
    models = {latent: retriever(latent=latent) for latent in (False, True)}
    arguments = TrainingArguments(output_dir=str(out), use_cpu=True, report_to=[])
    for name, (loss, cache, budgets) in CASES.items():
        model, engine = models[name.startswith("latent")]
        training = {"batch_size": 8, "steps": 1, "learning_rate": 1, "gradient_cache": cache, "chunk_tokens": budgets[rank()]}
        data = [{"kind": "captions", "path": "not read"}]
        recipe = recipes.parse({"name": "x", "model": {"path": "x"}, "data": data, "loss": loss, "training": training}, name)
        objective = Contrastive(engine.renderer, recipe.loss, recipe.training)
        steps = StepDataset(Plan([8], [1.0], 8, 1, None, 0), [], objective.build, rank(), world_size())
        trainer = StageTrainer(model, objective, recipe.training, arguments, steps, [])
        value = trainer.training_step(model, batch_of(examples()[rank()], engine))
        (out / f"{name}.{rank()}.json").write_text(json.dumps({"loss": value.item(), "processes": world_size()}))
        save_file(gradients(model), out / f"{name}.{rank()}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
