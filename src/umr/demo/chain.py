"""The demo's pipeline when it is done: where its products are, and what the stages that measure have found."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umr.pipelines import Pipeline
from umr.pipelines.manifest import Manifest
from umr.pipelines.pipeline import VECTORS
from umr.pipelines.plan import ancestors
from umr.pipelines.references import fill

MEASURES = "eval-"
"""Names of the stages that measure begin so; the rest is the name in the report."""
LAST = "eval-plus"


@dataclass(frozen=True)
class Chain:
    """A finished pipeline.

    Attributes:
        pipeline: as it was run.
        manifests: of its stages by name, in order.
    """

    pipeline: Pipeline
    manifests: Mapping[str, Manifest]

    def product(self, name: str) -> Path:
        """What a stage has made."""
        return self.pipeline.folder / name / self.pipeline.step(name).product

    @property
    def vectors(self) -> Path:
        """The folder of vectors that all stages share."""
        return self.pipeline.folder / VECTORS

    def config(self, name: str) -> dict[str, Any]:
        """What a stage was told, with the paths of other stages' products."""
        step = self.pipeline.step(name)
        filled: dict[str, Any] = fill(step.config, {used: str(self.product(used)) for used in step.uses})
        return filled

    def result(self, name: str) -> dict[str, Any]:
        """What a stage that measures has written."""
        found: dict[str, Any] = json.loads(self.product(name).read_text("utf-8"))
        return found

    def logs(self, loss: str) -> dict[str, list[dict[str, Any]]]:
        """Training log of each stage that trains with this kind of loss."""
        trained = [name for name, done in self.manifests.items() if done.kind == "train" and _loss(done) == loss]
        logs = ((name, (self.pipeline.folder / name / "log.jsonl").read_text("utf-8")) for name in trained)
        return {name: [json.loads(line) for line in text.splitlines()] for name, text in logs}

    def content(self, seed: int) -> dict[str, Any]:
        """What `report.json` holds: scores of each measured stage in percent.

        The seconds of a stage are those of everything that its measurement needs and the ones before it do not, so that they add
        up to the whole.
        """
        stages, counted = [], frozenset[str]()
        for name, done in self.manifests.items():
            if done.kind != "eval":
                continue
            needed = ancestors(self.pipeline.steps, [name])
            seconds = sum(one.seconds for stage, one in self.manifests.items() if stage in needed - counted)
            counted |= needed
            stages.append({"name": name.removeprefix(MEASURES), **_scores(self.result(name)), "seconds": round(seconds, 1)})
        machine = f"{os.cpu_count() or 1} CPU cores, {platform.machine()}, Python {platform.python_version()}"
        total = sum(done.seconds for done in self.manifests.values())
        return {"seconds": round(total, 1), "machine": machine, "seed": seed, "stages": stages}


def _loss(done: Manifest) -> str:
    return str(done.config["recipe"]["loss"].get("kind", "infonce"))


def _scores(result: dict[str, Any]) -> dict[str, Any]:
    """Scores by pool and setting, hit@5 first, and the averages of hit@5."""
    scores: dict[str, Any] = {}
    for pool in result["averages"]:
        scores[pool] = {one["setting"]: _of_setting(one["pools"][pool]) for one in result["settings"]}
    return scores | {f"{pool}_average": round(average["hit@5"], 2) for pool, average in result["averages"].items()}


def _of_setting(found: dict[str, Any]) -> dict[str, float]:
    scores = {name: round(value, 2) for name, value in sorted(found["metrics"].items())}
    return {"hit@5": scores.pop("hit@5"), **scores, "chance hit@5": round(found["chance"]["hit@5"], 2), "pool size": found["size"]}
