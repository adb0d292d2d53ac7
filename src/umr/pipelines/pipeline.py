"""A pipeline file: read, changed from outside, and checked, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umr.errors import RecipeError
from umr.pipelines.fingerprints import of_config
from umr.pipelines.needs import Need, needs_of
from umr.pipelines.references import fill, read_value, read_yaml, references
from umr.pipelines.stages import KINDS, Stage

VECTORS = "vectors"
"""`${vectors}`: the folder in which all stages of a pipeline keep vectors. No stage may have its name, nor those of other files there."""
_RESERVED = (VECTORS, "replaced")
_MOST_SHOWN = 20


class Mistakes(RecipeError):
    """What is wrong with a pipeline, a line for each mistake."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True)
class Step:
    """A stage ready to be planned; plain data, so that it can be handed to another process.

    Attributes:
        name, kind: of the stage.
        config: everything that decides what it does; products of other stages stand as `${name}`.
        uses: the stages it refers to.
        needs: what it takes from outside.
    """

    name: str
    kind: str
    config: dict[str, Any]
    uses: tuple[str, ...]
    needs: tuple[Need, ...]

    @cached_property
    def config_hash(self) -> str:
        """Of kind and config."""
        return of_config(self.kind, self.config)

    @property
    def product(self) -> str:
        """Name of what it makes, inside its folder."""
        return str(KINDS[self.kind].product)


@dataclass(frozen=True)
class Pipeline:
    """A checked pipeline.

    Attributes:
        name: of the pipeline.
        folder: where everything goes, absolute.
        steps: in order; each refers to earlier ones only.
        sources: where paths from outside come from, as the file says, by path.
        variables: with the values used.
    """

    name: str
    folder: Path
    steps: tuple[Step, ...]
    sources: dict[str, str]
    variables: dict[str, Any]

    def step(self, name: str) -> Step:
        """By name. Raises `RecipeError` for an unknown one."""
        for step in self.steps:
            if step.name == name:
                return step
        raise RecipeError(f"{self.name}: there is no stage {name!r}; the pipeline has {', '.join(step.name for step in self.steps)}")


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    folder: str | None = None
    variables: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    stages: list[Stage] = Field(min_length=1)


def load(path: Path, overrides: list[str] | None = None, out: Path | None = None) -> Pipeline:
    """Read a pipeline.

    Args:
        path: YAML file.
        overrides: `variable=value` or `stages.<name>.<key>=value`; values are YAML.
        out: folder in place of the file's own.

    Raises:
        Mistakes: whatever is wrong, a line for each, with file and key.
    """
    changes = {}
    for override in overrides or []:
        key, separator, value = override.partition("=")
        if not separator:
            raise RecipeError(f"{override!r}: a change is written key=value, such as seed=1 or stages.instructed.training.steps=10")
        changes[key] = read_value(value, override)
    return build(read_yaml(path, "pipeline"), path, changes, out)


def build(tree: dict[str, Any], path: Path, changes: Mapping[str, Any], out: Path | None = None) -> Pipeline:
    """Check a pipeline given as plain data; `changes` by key as in `load`.

    Args:
        tree: content of the file; it is changed.
        path: of the file, for errors and for paths of recipes.
        changes: values by key.
        out: folder in place of the file's own.
    """
    for key, value in changes.items():
        _change(tree, key, value, path)
    variables = tree.get("variables") or {}
    if not isinstance(variables, dict):
        raise Mistakes([f"{path}: variables: a mapping of names and values is expected"])
    document = _validated(fill({**tree, "variables": variables}, variables), path)
    mistakes = list(_wrong_names(document, path)) + list(_wrong_references(document, path))
    steps: list[Step] = []
    for stage in document.stages if not mistakes else ():
        try:
            steps.append(_step(stage, path.parent))
        except RecipeError as error:
            mistakes.append(f"{path}: stages.{stage.name}: {error}")
        except ValidationError as error:  # of the settings that a stage hands on
            mistakes += [f"{path}: stages.{stage.name}.{_place(one['loc'])}: {_message(one)}" for one in error.errors()]
    if mistakes:
        raise Mistakes(mistakes[:_MOST_SHOWN])
    folder = out or Path(document.folder or f"runs/{document.name}")
    return Pipeline(document.name, folder.absolute(), tuple(steps), document.sources, dict(document.variables))


def _step(stage: Any, folder: Path) -> Step:
    config = stage.config(folder)
    used = tuple(name for name in references(config) if name != VECTORS)
    return Step(stage.name, stage.kind, config, used, needs_of(stage.kind, config))


def _change(tree: dict[str, Any], key: str, value: Any, path: Path) -> None:
    """Put one value in place of what the file says."""
    variables, stages = tree.get("variables") or {}, tree.get("stages") or []
    if "." not in key:
        if key not in variables:
            known = ", ".join(variables) or "none"
            raise RecipeError(f"{key}: {path} has no variable of this name (it has {known}); keys of a stage are stages.<name>.<key>")
        variables[key] = value
        return
    first, name, *rest = key.split(".")
    named = [stage for stage in stages if isinstance(stage, dict) and stage.get("name") == name]
    if first != "stages" or not rest or not named:
        known = ", ".join(str(stage.get("name")) for stage in stages if isinstance(stage, dict))
        raise RecipeError(f"{key}: a change is of a variable, or stages.<name>.<key> with a name among {known}")
    place = named[0]
    if place.get("kind") == "train" and rest not in (["recipe"], ["with"]):
        inside = place.setdefault("with", {})
        inside[".".join(rest[1:] if rest[0] == "with" else rest)] = value
        return
    for parent in rest[:-1]:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise RecipeError(f"{key}: {parent} of stage {name} is no mapping, so it has no place {rest[-1]!r}")
    place[rest[-1]] = value


def _validated(tree: Any, path: Path) -> _Document:
    try:
        return _Document.model_validate(tree)
    except ValidationError as error:
        lines = [f"{path}: {_place(_by_name(one['loc'], tree))}: {_message(one)}" for one in error.errors()]
        raise Mistakes(lines[:_MOST_SHOWN]) from error


def _by_name(place: tuple[int | str, ...], tree: Any) -> list[int | str]:
    """`("stages", 1, "train", "recipe")` with the name of the stage for its number, and without the kind."""
    if len(place) < 2 or place[0] != "stages":
        return list(place)
    stages, number = tree["stages"], place[1]
    stage = stages[number] if isinstance(stages, list) and isinstance(number, int) else None
    named: int | str = stage["name"] if isinstance(stage, dict) and isinstance(stage.get("name"), str) else number
    return ["stages", named, *(part for part in place[2:] if part not in KINDS)]


def _place(place: Any) -> str:
    return ".".join(map(str, place)) or "the file"


def _message(one: Any) -> str:
    if one["type"] == "extra_forbidden":
        return "unknown key; remove it or correct its name"
    return " ".join(str(one["msg"]).removeprefix("Value error, ").split())


def _wrong_names(document: _Document, path: Path) -> Iterator[str]:
    seen: set[str] = set()
    for stage in document.stages:
        if stage.name in seen:
            yield f"{path}: stages.{stage.name}: two stages have this name; every name is used once"
        if stage.name in document.variables:
            yield f"{path}: stages.{stage.name}: a variable has this name, too; rename one of them"
        if stage.name in _RESERVED:
            yield f"{path}: stages.{stage.name}: the name is taken, for {', '.join(_RESERVED)} lie beside the stages; choose another"
        seen.add(stage.name)


def _wrong_references(document: _Document, path: Path) -> Iterator[str]:
    names, earlier = [stage.name for stage in document.stages], {VECTORS}
    for stage in document.stages:
        for name in references(stage.model_dump()):
            if name in earlier:
                continue
            if name in names:
                when = "itself" if name == stage.name else "a later stage"
                yield f"{path}: stages.{stage.name}: refers to {when}, ${{{name}}}; a stage uses earlier ones only"
            else:
                yield f"{path}: stages.{stage.name}: ${{{name}}} is neither a variable nor a stage; there are {', '.join(names)}"
        earlier.add(stage.name)
