"""Our step on `transformers.Trainer`, which brings the loop, checkpoints, schedules, precision and trackers."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from umr.errors import UmrError
from umr.files import write_text
from umr.losses.gathered import barrier, world_size
from umr.processes import end_with_parent
from umr.training.batches import StepDataset, identity
from umr.training.objectives import Objective
from umr.training.recipe_sections import TrainingSection

COMPLETE = "complete"
"""Written last into a checkpoint; one without it was interrupted and is not resumed from."""
WEIGHTS = "model.safetensors"


class StageTrainer(Trainer):
    """Trains a module by an objective.

    Args:
        module: what is optimised.
        objective: what a step does.
        settings: memory and precision.
        arguments: transformers' own.
        steps: the batches.
        callbacks: transformers' callbacks.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        objective: Objective,
        settings: TrainingSection,
        arguments: TrainingArguments,
        steps: StepDataset,
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(model=module, args=arguments, train_dataset=steps, data_collator=identity, callbacks=callbacks)
        self.objective, self.settings = objective, settings

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One element a step, already this device's share; hence not split again by accelerate."""
        workers = self.settings.workers
        return DataLoader(
            self.train_dataset,
            batch_size=1,
            shuffle=False,
            collate_fn=identity,
            num_workers=workers,
            prefetch_factor=1 if workers else None,  # of each worker, and one is a whole step: a gigabyte of pixels at full size
            persistent_workers=False,
            worker_init_fn=_begin if workers else None,
        )

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Accumulate the gradient of one global batch and return its loss."""
        if isinstance(inputs, UmrError):
            raise inputs
        model.train()
        module: Any = self.accelerator.unwrap_model(model)
        # All processes must agree on nothing but the loss: gradients are added up below, once, whatever the chunks were.
        with _without_reduction(model):
            loss = self.objective.backward(module, inputs, self._precision)
        if world_size() > 1:
            _sum_gradients(module)
            dist.all_reduce(loss)
        return loss

    def _precision(self) -> AbstractContextManager[object]:
        if self.settings.precision == "bfloat16":
            return torch.autocast(self.args.device.type, torch.bfloat16)
        return nullcontext()

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> None:
        return None  # the loss is a mean over the global batch already

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted here; throughput is reported in queries and tokens."""
        return 0

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save what is trained, as safetensors; frozen weights stay in the folder the run started from."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: parameter.detach().cpu().contiguous() for name, parameter in self._trained()}
        save_file(trained, folder / WEIGHTS)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        barrier()  # the other processes write their random states
        if self.args.should_save:
            write_text(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / COMPLETE, "")

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """As in transformers, without the temperature: decay would pull its logarithm to zero, the temperature to one."""
        return [name for name in super().get_decay_parameter_names(model) if not name.startswith("temperature.")]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(saved[name])

    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        module = self.accelerator.unwrap_model(self.model)
        return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def _without_reduction(model: Any) -> AbstractContextManager[object]:
    """Keep DistributedDataParallel, where it is, from averaging by itself."""
    return model.no_sync() if hasattr(model, "no_sync") else nullcontext()


def remove_interrupted_checkpoints(run: Path) -> None:
    """Remove checkpoints that were not written to their end."""
    for folder in run.glob("checkpoint-*"):
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)


def last_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint."""
    return max(run.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def _sum_gradients(module: torch.nn.Module) -> None:
    """Add up the gradients of all ranks. The losses are shares of the global mean, so the sum is its gradient."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:  # this rank's rows did not use it, another's may have
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.reshape(-1) for parameter in trained if parameter.grad is not None])
    dist.all_reduce(flat)
    start = 0
    for parameter in trained:
        assert parameter.grad is not None
        parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


def _begin(worker: int) -> None:
    end_with_parent()
