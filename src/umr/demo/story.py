"""The demo's steps in order. Each is skipped when an earlier run has finished it, and goes on where that was interrupted.

<out>/world/          the benchmark
<out>/start/          a checkpoint with random weights
<out>/<stage>/        training run, model inside
<out>/vectors/        vectors of every stage
<out>/report.json     scores of every stage
<out>/report.html     the same to look at, with pictures
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from umr.data.world import Size, generate, iter_texts
from umr.demo import answers, report
from umr.evaluation import EvaluationResult, evaluate
from umr.files import write_text
from umr.models.embedder import Embedder
from umr.models.tiny import make_checkpoint
from umr.training import recipe as recipes
from umr.training.run import train

Show = Callable[[object], None]
STAGES = ("captions", "instructed")
SIZE: Size = "tiny"


@dataclass
class Clock:
    """Seconds of each step, kept across interruptions; a step that was done before keeps its time.

    Attributes:
        file: where they are kept.
        seconds: by step.
        done: steps that were finished.
    """

    file: Path
    seconds: dict[str, float]
    done: set[str]

    @classmethod
    def open(cls, file: Path) -> Clock:
        """Read earlier times, if any."""
        kept = json.loads(file.read_text()) if file.is_file() else {"seconds": {}, "done": []}
        return cls(file, kept["seconds"], set(kept["done"]))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; an interrupted one adds up."""
        started = time.monotonic()
        try:
            yield
        except BaseException:
            self._add(name, time.monotonic() - started)
            raise
        self._add(name, time.monotonic() - started)
        self.done.add(name)
        self._save()

    def _add(self, name: str, seconds: float) -> None:
        if name not in self.done:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            self._save()

    def _save(self) -> None:
        write_text(self.file, json.dumps({"seconds": self.seconds, "done": sorted(self.done)}, indent=1))


def run_demo(out: Path, seed: int = 0, show: Show = lambda _: None, overrides: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """Run the demo, or what is missing of it.

    Args:
        out: folder for everything it makes.
        seed: of the data, the weights and the training.
        show: called with texts and rich tables as they become known.
        overrides: changes to a stage's recipe, `{"captions": ["training.steps=10"]}`.

    Returns:
        What `<out>/report.json` holds: scores of each stage in percent.

    Raises:
        DataError, RecipeError: `out` holds a demo of another seed or something else.
    """
    clock = Clock.open(out / "seconds.json")
    world = out / "world"
    with clock.step("world"):
        generate(world, size=SIZE, seed=seed, workers=os.cpu_count() or 1)
    with clock.step("start"):
        if not (out / "start" / "config.json").is_file():
            make_checkpoint("qwen3-vl", out / "start", iter_texts(world), "tiny", seed)
    results = {"untrained": _measure(out, "untrained", out / "start", clock, show)}
    logs = {}
    for stage in STAGES:
        with clock.step(f"train {stage}"):
            model = train(_recipe(stage, out, seed, (overrides or {}).get(stage, [])), out=out / stage)
        results[stage] = _measure(out, stage, model, clock, show)
        logs[stage] = [json.loads(line) for line in (out / stage / "log.jsonl").read_text().splitlines()]
    content = _content(results, clock, seed)
    write_text(out / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(out / "report.html", report.html(content, results, logs, world))
    show(report.summary(content))
    show(answers.three_answers(Embedder.load(out / STAGES[-1] / "model"), world, out / "vectors"))
    show(f"{out / 'report.html'}: tables, curves and pictures; {sum(clock.seconds.values()):.0f} s in all")
    return content


def _recipe(stage: str, out: Path, seed: int, overrides: list[str]) -> recipes.Recipe:
    text = files("umr.demo").joinpath(f"{stage}.yaml").read_text("utf-8")
    tree: Any = recipes.read(text, f"{stage}.yaml", [f"training.seed={seed}", *overrides])
    tree["model"]["path"] = tree["model"]["path"].replace("demo/", f"{out}/", 1)
    for section in tree["data"]:
        section["path"] = section["path"].replace("demo/", f"{out}/", 1)
    return recipes.parse(tree, f"{stage}.yaml")


def _measure(out: Path, name: str, model: Path, clock: Clock, show: Show) -> EvaluationResult:
    with clock.step(f"evaluate {name}"):
        result = evaluate(Embedder.load(model), out / "world", work_dir=out / "vectors")
        write_text(out / f"evaluation-{name}.json", result.to_json())
    averages = {pool: values["hit@5"] for pool, values in result.averages.items()}
    show(f"{name}: hit@5 of test queries {averages['local']:.1f} on local pools, {averages['global']:.1f} on the global pool")
    return result


def _content(results: dict[str, EvaluationResult], clock: Clock, seed: int) -> dict[str, Any]:
    stages = []
    for name, result in results.items():
        tasks = {pool: {one.setting: _scores(one.pools[pool]) for one in result.settings} for pool in ("local", "global")}
        seconds = clock.seconds.get(f"train {name}", 0.0) + clock.seconds[f"evaluate {name}"]
        averages = {f"{pool}_average": round(result.averages[pool]["hit@5"], 2) for pool in ("local", "global")}
        stages.append({"name": name, **tasks, **averages, "seconds": round(seconds, 1)})
    cores = os.cpu_count() or 1
    machine = f"{cores} CPU cores, {platform.machine()}, Python {platform.python_version()}"
    return {"seconds": round(sum(clock.seconds.values()), 1), "machine": machine, "seed": seed, "stages": stages}


def _scores(pool: Any) -> dict[str, float]:
    scores = {name: round(value, 2) for name, value in pool.metrics.items()}
    return {"hit@5": scores.pop("hit@5"), **scores, "chance hit@5": round(pool.chance["hit@5"], 2), "pool size": pool.size}
