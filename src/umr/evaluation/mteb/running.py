"""Running mteb's tasks with a model of ours, and what it found as rows for a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import mteb
from mteb.abstasks import AbsTask

from umr.errors import ModelError, RecipeError
from umr.evaluation.mteb.encoder import MtebEncoder
from umr.evaluation.mteb.reranker import MtebReranker


def run(model: MtebEncoder | MtebReranker, tasks: Sequence[AbsTask], folder: Path) -> mteb.results.ModelResult:
    """Measure a model on tasks, one after the other, and keep each result as soon as it is there.

    Called again, it goes on where it stopped: results of this model (its fingerprint, its instructions) that are in the folder are taken
    from there.

    Args:
        model: an encoder, or for reranking tasks a reranker.
        tasks: mteb's, such as `named_tasks(["NFCorpus"])` or `benchmark_tasks(Path("data"))`.
        folder: for results in mteb's own layout, `results/<model>/<fingerprint>/<task>.json`.

    Returns:
        mteb's results in the tasks' order.

    Raises:
        RecipeError: an instruction for none of the tasks, or tasks that mteb refuses to run with this model.
        ModelError: a task has media that the model does not take.
    """
    model.instructions.check(tasks)
    for task in tasks:
        if missing := sorted(set(task.metadata.modalities) - set(model.mteb_model_meta.modalities)):
            raise ModelError(f"task {task.metadata.name} has {', '.join(missing)}, which this model does not take; leave the task out")
    try:
        with _without_bars():
            return mteb.evaluate(model, tasks, cache=mteb.ResultCache(folder), show_progress_bar=False)
    except ValueError as error:  # what mteb raises for tasks and models that do not fit
        raise RecipeError(f"mteb: {error}") from error


def score_rows(found: mteb.results.ModelResult, tasks: Sequence[AbsTask]) -> Iterator[tuple[str, str, str, float]]:
    """Task, split, name of its main score, and that score in percent, the mean over its subsets."""
    names = {task.metadata.name: task.metadata.main_score for task in tasks}
    for result in found.task_results:
        for split, subsets in result.scores.items():
            values = [100 * one["main_score"] for one in subsets]
            yield result.task_name, split, names[result.task_name], sum(values) / len(values)


def named_tasks(names: Sequence[str]) -> list[AbsTask]:
    """Tasks that mteb knows. Raises `RecipeError` for a name that it does not."""
    return [_task(name) for name in names]


def _task(name: str) -> Any:
    try:
        return mteb.get_task(name)
    except KeyError as error:
        raise RecipeError(f"mteb has no task {name!r}: {error.args[0]}") from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the bars over the rewriting of data sets off the terminal, where ours are."""
    wanted = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if wanted:
            datasets.enable_progress_bars()
