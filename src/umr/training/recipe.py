"""A recipe: everything that decides what a training run does, as YAML, checked before anything is loaded.

Unknown keys, and keys without effect in the chosen mode, are errors that name the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from umr.errors import RecipeError
from umr.rendering.pair_template import PROMPTS_SUFFIXES
from umr.training.recipe_sections import (
    DataSection,
    DistillationSection,
    GenerativeSection,
    InfoNceSection,
    LossSection,
    ModelSection,
    RerankSection,
    Section,
    TrainingSection,
)

_TAGS = frozenset(
    [
        "mbeir",
        "captions",
        "text_pairs",
        "scored",
        "text_retrieval",
        "triples",
        "infonce",
        "distillation",
        "rerank",
        "statements",
        "generative",
    ]
)
"""Names of the kinds, which pydantic puts into the place of an error."""


class Recipe(Section):
    """A whole training run."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    model: ModelSection
    data: list[DataSection] = Field(min_length=1)
    loss: LossSection = Field(default_factory=lambda: InfoNceSection.model_validate({"kind": "infonce"}))
    training: TrainingSection

    @model_validator(mode="before")
    @classmethod
    def _default_loss(cls, tree: Any) -> Any:
        """A loss without a kind is InfoNCE."""
        loss = tree.get("loss") if isinstance(tree, dict) else None
        return {**tree, "loss": {"kind": "infonce", **loss}} if isinstance(loss, dict) else tree

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        kinds = {section.kind for section in self.data}
        if isinstance(self.loss, DistillationSection):
            if kinds != {"scored"}:
                raise ValueError("data: distillation learns from scored lists; use sections of kind scored only")
        elif "scored" in kinds:
            raise ValueError("data: kind scored has no effect without loss.kind=distillation")
        if isinstance(self.loss, GenerativeSection) != ("statements" in kinds) or ("statements" in kinds and len(kinds) > 1):
            raise ValueError("data: kind statements and loss.kind=generative go together, and with nothing else")
        if isinstance(self.loss, RerankSection | GenerativeSection):
            self._check_reranker(self.loss)
        elif self.loss.kind == "infonce":
            if self.loss.negatives and kinds == {"captions"}:
                raise ValueError("loss.negatives has no effect: caption data holds no hard negatives")
            if not self.loss.in_batch and (not self.loss.negatives or self.loss.both_ways):
                raise ValueError("loss.in_batch=false needs loss.negatives above 0 and loss.both_ways=false")
            if not self.loss.in_batch and not self.loss.mask_false_negatives:
                raise ValueError("loss.mask_false_negatives has no effect with loss.in_batch=false; leave it out")
        return self

    def _check_reranker(self, loss: RerankSection | GenerativeSection) -> None:
        if idle := [key for key in ("positions", "pooling", "latent", "dimension") if getattr(self.model, key) is not None]:
            raise ValueError(f"model.{idle[0]} has no effect on a reranker, which reads its answer off the last token; leave it out")
        if "pooling" in (self.training.parts or ()):
            raise ValueError("training.parts: a reranker has no pooling part; leave it out")
        if not self.training.gradient_cache:
            raise ValueError("training.gradient_cache has no effect on a reranker, whose loss falls apart by rows; leave it out")
        if isinstance(loss, GenerativeSection):
            if not (self.model.template or "").endswith(PROMPTS_SUFFIXES):
                raise ValueError("model.template: generative training needs a prompts file, whose name ends in .yaml")
        elif not loss.strangers and any(section.kind == "captions" for section in self.data):
            raise ValueError("data: a reranker needs wrong candidates, and caption data holds none; set loss.strangers")


def load(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `key=value` changes.

    Args:
        path: YAML file. Relative paths inside it are taken from the current folder.
        overrides: such as `training.steps=100` or `data.0.path=World`; values are YAML.

    Raises:
        RecipeError: unreadable file, unknown or effect-less key, bad value.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}); give the path of a recipe in YAML") from error
    return parse(read(text, str(path), overrides), str(path))


def read(text: str, where: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Turn YAML and changes to it into plain data, not checked yet. Raises `RecipeError`."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{where}: a recipe is a mapping with the keys name, model, data, loss and training")
    for override in overrides or []:
        _apply(tree, override)
    return tree


def parse(tree: dict[str, Any], where: str) -> Recipe:
    """Check a recipe given as plain data. Raises `RecipeError` naming the first bad key."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in _TAGS)
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{where}: unknown key {key!r}; remove it or correct its name") from error
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{where}: {key + ': ' if key else ''}{message}") from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise RecipeError(f"{override!r}: an override is written key=value, such as training.steps=100")
    node: Any = tree
    *parents, last = key.split(".")
    try:
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        if isinstance(node, list):
            node[int(last)] = yaml.safe_load(value)
        else:
            node[last] = yaml.safe_load(value)
    except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise RecipeError(f"{override!r}: the recipe has no place {key!r}") from error
