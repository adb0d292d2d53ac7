"""The distinct stages of a study. A stage that several variants have in common, inputs included, is one node and is run once.

The folder of a node is `<stage>-<hash of its kind, config and inputs>`, so it is known before anything has run, and a study
that is changed later finds what it still needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from umr.pipelines.manifest import Record, read_record
from umr.pipelines.pipeline import VECTORS, Pipeline, Step
from umr.pipelines.plan import ancestors
from umr.pipelines.runner import REPLACED, Place, fingerprints
from umr.pipelines.stages import EMBEDS
from umr.study.definition import Study, Variant

STAGES = "stages"


@dataclass(frozen=True)
class Node:
    """One distinct stage.

    Attributes:
        key: its name in the folder of stages.
        step: what it does.
        uses: the nodes it takes products of, by the names that its config refers to them with.
        sources: fingerprints of what it takes from outside.
        folder: of the study.
    """

    key: str
    step: Step
    uses: dict[str, Node]
    sources: dict[str, str]
    folder: Path

    @cached_property
    def place(self) -> Place:
        """Where it works."""
        products = {name: node.product for name, node in self.uses.items()}
        return Place(self.folder / STAGES / self.key, self.folder / REPLACED / self.key, products, self.folder / VECTORS)

    @property
    def product(self) -> Path:
        """What it makes."""
        return self.place.folder / self.step.product

    @property
    def record(self) -> Record:
        """What is on disk of it now."""
        return read_record(self.place.folder, self.step.product)

    @property
    def done(self) -> bool:
        """Whether it is finished."""
        record = self.record
        return record.finished is not None and record.product_there

    @property
    def embeds(self) -> str | None:
        """The model that it writes vectors of: two stages of one model do not run at once. `None` where there is none."""
        if self.step.kind not in EMBEDS:
            return None
        model = str(self.step.config["model"])
        return next((node.key for name, node in self.uses.items() if model == f"${{{name}}}"), model)


@dataclass(frozen=True)
class Matrix:
    """All nodes of a study.

    Attributes:
        nodes: by key, each after those it uses.
        reported: the node that measures, by table, variant and seed.
        sources: where paths from outside come from.
    """

    nodes: dict[str, Node]
    reported: dict[tuple[str, str, int], Node]
    sources: dict[str, str]


def matrix(study: Study) -> Matrix:
    """Cut every variant to what its reported stage depends on, and find what they have in common."""
    nodes: dict[str, Node] = {}
    reported: dict[tuple[str, str, int], Node] = {}
    origins: dict[str, str] = {}
    known: dict[str, dict[str, str]] = {}
    for table in study.tables:
        for variant in table.variants:
            for seed, pipeline, kept in _runs(variant, table.stages):
                named: dict[str, Node] = {}
                for step in kept:
                    node = _node(step, named, study.folder, known)
                    named[step.name] = nodes.setdefault(node.key, node)
                reported[table.name, variant.name, seed] = named[variant.stage]
                origins |= pipeline.sources
    return Matrix(nodes, reported, origins)


def _runs(variant: Variant, further: tuple[str, ...]) -> Iterator[tuple[int, Pipeline, list[Step]]]:
    for seed, pipeline in variant.pipelines.items():
        kept = ancestors(pipeline.steps, (variant.stage, *further))
        yield seed, pipeline, [step for step in pipeline.steps if step.name in kept]


def _node(step: Step, named: dict[str, Node], folder: Path, known: dict[str, dict[str, str]]) -> Node:
    uses = {name: named[name] for name in step.uses}
    if step.config_hash not in known:  # looking at a large benchmark takes a while
        known[step.config_hash] = fingerprints(step)
    sources = known[step.config_hash]
    identity = [step.config_hash, {name: node.key for name, node in uses.items()}, sources]
    key = f"{step.name}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]}"
    return Node(key, step, uses, sources, folder)
