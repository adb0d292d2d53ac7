"""One training run: recipe in, a folder out with the model and the record of how it came about.

<out>/recipe.yaml     the recipe, every default written out
<out>/run.json        versions, fingerprints of data and models, seed, machine, time, throughput, final loss
<out>/log.jsonl       loss, learning rate, temperature by step
<out>/begun.json      while it runs: fingerprints of data and model that a later start must find again
<out>/model/          the trained model; its existence means that the run is done
<out>/checkpoint-*/   while it runs
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from umr.errors import RecipeError
from umr.files import write_text
from umr.losses.gathered import barrier, rank, world_size
from umr.progress import progress, quiet
from umr.training import learners
from umr.training import recipe as recipes
from umr.training.batches import StepDataset
from umr.training.learners import Learner
from umr.training.plan import Plan
from umr.training.recipe import Recipe
from umr.training.sources import open_sources
from umr.training.trainer import StageTrainer, last_checkpoint, remove_interrupted_checkpoints

BEGUN = "begun.json"
PACKAGES = ("torch", "transformers", "sentence-transformers", "peft", "accelerate", "numpy", "pillow")


def train(recipe: Path | Recipe, overrides: list[str] | None = None, out: Path | None = None, restart: bool = False) -> Path:
    """Run a recipe, or go on with an interrupted run of it.

    Args:
        recipe: path of a YAML file, or a checked recipe.
        overrides: `key=value` changes to a file.
        out: run folder; `runs/<name>` by default.
        restart: throw an earlier run in `out` away instead of going on with it.

    Returns:
        The folder of the trained model, `<out>/model`. A finished run is not repeated.

    Raises:
        RecipeError: a bad recipe, or `out` holds a run of another recipe.
        DataError, ModelError: as the data and the model say.
    """
    checked = recipes.load(recipe, overrides) if isinstance(recipe, Path) else recipe
    out = out or Path("runs") / checked.name
    _join_processes()
    try:
        if rank() == 0:
            _claim(checked, out, restart)
    finally:
        barrier()
    _claim(checked, out)
    if not ((out / "run.json").is_file() and (out / "model" / "config.json").is_file()):
        _run(checked, out)
        barrier()
    return out / "model"


def _join_processes() -> None:
    """Connect with the other processes when started by torchrun, before anything asks which one this is."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=not torch.cuda.is_available())


def _claim(recipe: Recipe, out: Path, restart: bool = False) -> None:
    """Write the recipe into a new run folder, or make sure that an old one is of the same recipe."""
    text, file = recipes.dump(recipe), out / "recipe.yaml"
    if restart and file.is_file():  # never anything but a run folder
        shutil.rmtree(out)
    if file.is_file():
        if recipes.load(file) != recipe:  # not by its text: a key that has come since has its default
            raise RecipeError(f"{out}: holds a run of another recipe (see {file}); choose another --out, or --restart to replace it")
    elif out.exists() and any(out.iterdir()):
        raise RecipeError(f"{out}: exists and is no run folder; choose another --out")
    else:
        write_text(file, text)


def _run(recipe: Recipe, out: Path) -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # tokenisation runs in worker processes already
    started = time.time()
    set_seed(recipe.training.seed)
    learner = learners.load(recipe)
    sources, weights, data = open_sources(recipe, learner.encoder)
    plan = _plan(recipe, sources, weights)
    dataset = StepDataset(plan, sources, learner.objective.build, rank(), world_size())
    record = _record(recipe, data, learner.started_from, plan.steps)
    trainer = StageTrainer(learner.module, learner.objective, recipe.training, _arguments(recipe, out, plan.steps), dataset, [])
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback", "NotebookProgressCallback"):
            trainer.remove_callback(type(callback))
    if rank() == 0:
        remove_interrupted_checkpoints(out)
    barrier()
    checkpoint = last_checkpoint(out)
    _note_start(out, {**data, "model": learner.started_from}, resumed=checkpoint is not None)
    with quiet() if rank() else nullcontext(), progress(f"training {recipe.name}", total=plan.steps, unit="steps") as bar:
        trainer.add_callback(_Reporter(out, learner, bar))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if rank() == 0:
        _finish(trainer, learner, out, record, started)


def _note_start(out: Path, found: dict[str, str], resumed: bool) -> None:
    """Write down what a run begins with, or make sure that it goes on with that: the recipe holds paths, and files change under them."""
    file = out / BEGUN
    if resumed and file.is_file():
        before: dict[str, str] = json.loads(file.read_text("utf-8"))
        if changed := sorted(name for name in before | found if before.get(name) != found.get(name)):
            raise RecipeError(f"{out}: {changed[0]} is not what this run began with; --restart begins anew with what is there now")
    elif rank() == 0:
        write_text(file, json.dumps(found, indent=2) + "\n")


def _plan(recipe: Recipe, sources: list[Any], weights: list[float]) -> Plan:
    settings = recipe.training
    if settings.batch_size % world_size():
        raise RecipeError(f"training.batch_size={settings.batch_size} does not divide over {world_size()} processes")
    sizes = [len(source) for source in sources]
    return Plan(sizes, weights, settings.batch_size, settings.steps, settings.epochs, settings.seed, settings.tasks_per_batch)


def _arguments(recipe: Recipe, out: Path, steps: int) -> TrainingArguments:
    settings = recipe.training
    return TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=1,  # one element of the data set is a whole step
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=round(settings.warmup_ratio * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        save_steps=settings.save_every,
        save_total_limit=2,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,  # it would report a diverged run as a good one
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        optim="adamw_torch_fused",
        dataloader_pin_memory=False,
    )


class _Reporter(TrainerCallback):
    """Live progress, and a line of `log.jsonl` for each logged step."""

    def __init__(self, out: Path, learner: Learner, bar: Any) -> None:
        self.file, self.learner, self.bar, self.done = out / "log.jsonl", learner, bar, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the lines of steps that are run again after an interruption."""
        if state.is_world_process_zero and self.file.is_file():
            lines = [line for line in self.file.read_text().splitlines() if _step_of(line) <= state.global_step]
            write_text(self.file, "".join(line + "\n" for line in lines))
        self._advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar, and log with every checkpoint, so that what is logged after it is the same after a resumption."""
        self._advance(state.global_step)
        control.should_log |= control.should_save

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write the numbers of a step."""
        if state.is_world_process_zero and "loss" in logs:
            line = {"step": state.global_step, "loss": logs["loss"], "learning_rate": logs["learning_rate"]}
            line["gradient_norm"] = float(logs.get("grad_norm", 0))
            if (temperature := self.learner.temperature()) is not None:
                line["temperature"] = temperature
            with self.file.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _advance(self, step: int) -> None:
        self.bar.advance(step - self.done)
        self.done = step


def _step_of(line: str) -> float:
    """The step of a line of the log; infinite for a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return float("inf")


def _record(recipe: Recipe, data: dict[str, str], fingerprint: str, steps: int) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return {
        "name": recipe.name,
        "data": data,
        "started_from": fingerprint,
        "steps": steps,
        "seed": recipe.training.seed,
        "machine": {"device": device, "processes": world_size(), "python": platform.python_version(), "system": platform.platform()},
        "versions": {name: version(name) for name in PACKAGES},
    }


def _finish(trainer: StageTrainer, learner: Learner, out: Path, record: dict[str, Any], started: float) -> None:
    temperature = learner.temperature()
    fingerprint, reasons = learner.save(out / "model")
    seconds = time.time() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    record |= {
        "model": fingerprint,
        "temperature": None if temperature is None else round(temperature, 6),
        "final_loss": losses[-1] if losses else None,
        "seconds_of_last_start": round(seconds, 1),
        "queries_per_second": round(trainer.settings.batch_size * trainer.state.max_steps / seconds, 1),
        "not_for_plain_sentence_transformers": reasons,
    }
    write_text(out / "run.json", json.dumps(record, indent=2) + "\n")
    (out / BEGUN).unlink(missing_ok=True)
    for folder in out.glob("checkpoint-*"):
        shutil.rmtree(folder)
