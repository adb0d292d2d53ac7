"""Running a pipeline: stage after stage, each decided on when its turn comes.

<folder>/<stage>/stage.started.json   while it runs
<folder>/<stage>/<product>            what it makes
<folder>/<stage>/stage.json           written last
<folder>/replaced/<stage>/            what was there before the stage was run again
<folder>/vectors/                     vectors of all stages
<folder>/report.json, report.html     of the stages that measure
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from umr.errors import RecipeError
from umr.pipelines import report
from umr.pipelines.manifest import BEGUN, DONE, Begun, Manifest, read_record, versions, write_begun
from umr.pipelines.needs import missing
from umr.pipelines.pipeline import VECTORS, Mistakes, Pipeline, Step
from umr.pipelines.plan import Decision, decide, dependants, plan
from umr.pipelines.processes import Team, alone_in, give_back_memory
from umr.pipelines.references import fill
from umr.pipelines.stages import KINDS

REPLACED = "replaced"
_DONE, _TRAIN = 0, 1
Show = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to run of a pipeline.

    Attributes:
        start: run this stage and all that depend on it again, from scratch.
        only: run this stage alone; what it uses must be finished.
    """

    start: str | None = None
    only: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a stage works.

    Attributes:
        folder: its own.
        replaced: where a finished run that is run again goes.
        products: paths of what other stages have made, by name.
        vectors: the folder of vectors that all stages share.
    """

    folder: Path
    replaced: Path
    products: Mapping[str, Path]
    vectors: Path


def fingerprints(step: Step) -> dict[str, str]:
    """Of what a stage takes from outside, by key and path."""
    return {f"{need.key} {need.value}": need.fingerprint() for need in step.needs}


def planned(pipeline: Pipeline, options: Options | None = None) -> dict[str, Decision]:
    """What would run, and why. Raises `RecipeError` for an unknown stage."""
    options = options or Options()
    if options.only is not None:
        pipeline.step(options.only)
    records = {step.name: read_record(pipeline.folder / step.name, step.product) for step in pipeline.steps}
    sources = {step.name: fingerprints(step) for step in pipeline.steps}
    return plan(pipeline.steps, records, sources, _forced(pipeline, options), options.only)


def missing_for(pipeline: Pipeline, decisions: Mapping[str, Decision]) -> list[str]:
    """What the stages that will or may run need from outside and is not there; a line for each."""
    going = [step for step in pipeline.steps if step.name in decisions and decisions[step.name].action != "skip"]
    return missing(((step.name, need) for step in going for need in step.needs), pipeline.sources)


def run(pipeline: Pipeline, options: Options | None = None, show: Show | None = None) -> dict[str, Manifest]:
    """Run what is not done, and write the report.

    Args:
        pipeline: checked.
        options: which part of it.
        show: gets a line when a stage is decided on.

    Returns:
        The manifests of all finished stages by name.

    Raises:
        Mistakes: something from outside is missing.
        RecipeError: another process runs the pipeline, or an unknown stage is named.
        UmrError: whatever a stage runs into.
    """
    options, team = options or Options(), Team()
    with ExitStack() as held:
        team.on_first(lambda: _enter(held, pipeline, options))
        for step in pipeline.steps:
            if options.only in (None, step.name):
                _advance(pipeline, step, _forced(pipeline, options), team, show or _nowhere)
        manifests = finished(pipeline)
        if team.rank == 0:
            report.write(pipeline.name, pipeline.folder, manifests)
    return manifests


def finished(pipeline: Pipeline) -> dict[str, Manifest]:
    """Manifests of the stages that are finished, in order."""
    records = {step.name: read_record(pipeline.folder / step.name, step.product) for step in pipeline.steps}
    return {name: record.finished for name, record in records.items() if record.finished is not None and record.product_there}


def _forced(pipeline: Pipeline, options: Options) -> frozenset[str]:
    return dependants(pipeline.steps, options.start) if options.start is not None else frozenset()


def _enter(held: ExitStack, pipeline: Pipeline, options: Options) -> int:
    held.enter_context(alone_in(pipeline.folder))
    if lines := missing_for(pipeline, planned(pipeline, options)):
        raise Mistakes(lines)
    return _DONE


def _advance(pipeline: Pipeline, step: Step, forced: frozenset[str], team: Team, show: Show) -> None:
    """Skip, resume or run one stage. Training runs in all processes, everything else in the first."""
    products = {one.name: pipeline.folder / one.name / one.product for one in pipeline.steps if one.name in step.uses}
    place = Place(pipeline.folder / step.name, pipeline.folder / REPLACED / step.name, products, pipeline.folder / VECTORS)
    started = time.monotonic()

    def start() -> int:
        inputs = {**{name: _product_of(pipeline, name) for name in step.uses}, **fingerprints(step)}
        decision = decide(step, read_record(place.folder, step.product), inputs, step.name in forced)
        show(f"{step.name}: {decision.action}, {decision.reason}")
        if decision.action == "skip":
            return _DONE
        begin(step, place, inputs, fresh=decision.action == "run")
        if step.kind != "train":
            finish(step, place, work(step, place), time.monotonic() - started)
        return _DONE if step.kind != "train" else _TRAIN

    if team.on_first(start) == _TRAIN:
        metrics = work(step, place)
        give_back_memory()
        team.on_first(lambda: finish(step, place, metrics, time.monotonic() - started))


def _product_of(pipeline: Pipeline, name: str) -> str:
    done = read_record(pipeline.folder / name, pipeline.step(name).product).finished
    if done is None:
        raise RecipeError(f"{pipeline.folder / name}: stage {name} is not finished; run it first")
    return done.product


def begin(step: Step, place: Place, inputs: dict[str, str], fresh: bool) -> None:
    """Make the stage's folder ready: empty, or as an interrupted run has left it.

    Args:
        step: the stage.
        place: where it works.
        inputs: fingerprints, written down with the start.
        fresh: from scratch; a finished run that is there moves to `place.replaced`, an unfinished one is removed.
    """
    if fresh and (place.folder / DONE).exists():
        shutil.rmtree(place.replaced, ignore_errors=True)
        place.replaced.parent.mkdir(parents=True, exist_ok=True)
        os.replace(place.folder, place.replaced)
    elif fresh and place.folder.exists():
        (place.folder / BEGUN).unlink(missing_ok=True)  # first, so that what is left after a kill is not taken for a run to go on with
        shutil.rmtree(place.folder)
    before = read_record(place.folder, step.product).begun
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_begun(place.folder, Begun(step.config_hash, inputs, before.started if before else now, before.starts + 1 if before else 1))


def work(step: Step, place: Place) -> dict[str, Any]:
    """Do what the stage is for, in its folder. Returns its metrics."""
    paths = {name: str(path) for name, path in place.products.items()} | {VECTORS: str(place.vectors)}
    metrics: dict[str, Any] = KINDS[step.kind].run(fill(step.config, paths), place.folder, place.vectors)
    return metrics


def finish(step: Step, place: Place, metrics: dict[str, Any], seconds: float) -> int:
    """Write the manifest, which marks the stage as done."""
    begun = read_record(place.folder, step.product).begun
    if begun is None:
        raise RecipeError(f"{place.folder}: was changed by something else while stage {step.name} ran; run it again")
    Manifest(
        name=step.name,
        kind=step.kind,
        config=step.config,
        config_hash=begun.config_hash,
        inputs=begun.inputs,
        product=KINDS[step.kind].fingerprint(place.folder / step.product),
        metrics=metrics,
        versions=versions(),
        seconds=round(seconds, 1),
        started=begun.started,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        starts=begun.starts,
    ).write(place.folder)
    return _DONE


def _nowhere(line: str) -> None:
    pass
