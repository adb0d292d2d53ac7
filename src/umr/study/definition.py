"""A study file: which changes to which pipeline are compared, and on which seeds."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umr.errors import RecipeError
from umr.pipelines.pipeline import Mistakes, Pipeline, build
from umr.pipelines.references import read_yaml

SEED, STAGE = "seed", "stage"
"""The pipeline's variable that a study sets, and the key of a variant that is reported at another stage."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    paper: str | None = None
    stage: str
    stages: list[str] = Field(default_factory=list)
    changes: dict[str, Any] = Field(default_factory=dict)
    """To the pipeline, in every variant; a variant's own come after them."""
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    baseline: str
    paper_local: dict[str, float] = Field(default_factory=dict)
    paper_global: dict[str, float] = Field(default_factory=dict)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    pipeline: str
    folder: str | None = None
    seeds: list[int] = Field(min_length=1)
    metric: Literal["local", "global"] = "local"
    stages: list[dict[str, Any]] = Field(default_factory=list)
    """Stages for comparison that follow the pipeline's own."""
    tables: list[_Table] = Field(min_length=1)


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        name: of the row.
        stage: the `eval` stage that is reported.
        pipelines: by seed, the pipeline with the variant's changes.
        paper: the paper's averages by pool, where the file gives them.
    """

    name: str
    stage: str
    pipelines: dict[int, Pipeline]
    paper: dict[str, float]


@dataclass(frozen=True)
class Table:
    """One question: several variants of the pipeline against a baseline.

    Attributes:
        name: the question.
        paper: which table of the paper asks it, if any.
        baseline: name of the variant that the others are compared with.
        stages: further stages to run, besides the reported one and what it uses.
        variants: the rows.
    """

    name: str
    paper: str | None
    baseline: str
    stages: tuple[str, ...]
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes:
        name: of the study.
        folder: where everything goes, absolute.
        seeds: that every variant is run with.
        metric: the pool whose averages are compared first.
        tables: in order.
    """

    name: str
    folder: Path
    seeds: tuple[int, ...]
    metric: str
    tables: tuple[Table, ...]


def load(path: Path, out: Path | None = None) -> Study:
    """Read a study.

    Args:
        path: YAML file; its `pipeline` is relative to it.
        out: folder in place of the file's own.

    Raises:
        Mistakes: whatever is wrong, a line for each, with file and key.
        RecipeError: as the pipeline says.
    """
    try:
        document = _Document.model_validate(read_yaml(path, "study"))
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, one['loc']))}: {' '.join(one['msg'].split())}" for one in error.errors()]
        raise Mistakes(lines) from error
    file = path.parent / document.pipeline
    base = read_yaml(file, "pipeline")
    if not isinstance(base.get("variables"), dict) or SEED not in base["variables"]:
        raise Mistakes([f"{file}: variables: a study sets the variable {SEED!r}, which the pipeline does not have"])
    base["stages"] = [*base.get("stages", []), *document.stages]
    mistakes: list[str] = []
    tables = tuple(_table(one, document.seeds, base, file, f"{path}: tables.{one.name}", mistakes) for one in document.tables)
    if mistakes:
        raise Mistakes(mistakes)
    folder = out or Path(document.folder or f"runs/{document.name}")
    return Study(document.name, folder.absolute(), tuple(document.seeds), document.metric, tables)


def _table(one: _Table, seeds: list[int], base: dict[str, Any], file: Path, where: str, mistakes: list[str]) -> Table:
    variants = []
    if one.baseline not in one.variants:
        mistakes.append(f"{where}.baseline: {one.baseline!r} is none of the variants {', '.join(one.variants)}")
    if STAGE in one.changes:
        mistakes.append(f"{where}.changes.{STAGE}: has no effect on all variants; give the table's stage")
    for key in ("paper_local", "paper_global"):
        mistakes += [f"{where}.{key}: there is no variant {name!r}" for name in getattr(one, key) if name not in one.variants]
    for name, own in one.variants.items():
        changes = {**one.changes, **own}
        stage = str(own.get(STAGE, one.stage))
        rest = {key: value for key, value in changes.items() if key != STAGE}
        try:
            pipelines = {seed: build(copy.deepcopy(base), file, {**rest, SEED: seed}) for seed in seeds}
            _check(pipelines[seeds[0]], stage, one.stages)
        except RecipeError as error:
            mistakes += [f"{where}.variants.{name}: {line}" for line in str(error).split("\n")]
            continue
        papers = {"local": one.paper_local.get(name), "global": one.paper_global.get(name)}
        variants.append(Variant(name, stage, pipelines, {pool: score for pool, score in papers.items() if score is not None}))
    return Table(one.name, one.paper, one.baseline, tuple(one.stages), tuple(variants))


def _check(pipeline: Pipeline, stage: str, stages: list[str]) -> None:
    if pipeline.step(stage).kind != "eval":
        raise RecipeError(f"stage {stage!r} measures nothing; name a stage of kind eval")
    for name in stages:
        pipeline.step(name)
