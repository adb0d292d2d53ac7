"""A recipe: everything that decides what a training run does, as YAML, checked before anything is loaded.

Unknown keys, and keys without effect in the chosen mode, are errors that name the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from umr.errors import RecipeError

Part = Literal["language", "projector", "vision"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelSection(_Section):
    """What is trained. Arguments of `Embedder.load`; None leaves the folder's own setting."""

    path: str
    template: str | None = None
    attention: Literal["bidirectional", "causal"] | None = None
    positions: Literal["mrope", "flat"] | None = None
    pooling: Literal["mean", "last", "token_before_emb"] | None = None
    dimension: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=8)
    min_pixels: int | None = Field(None, ge=1)
    max_pixels: int | None = Field(None, ge=1)
    kernel: str = "sdpa"
    dtype: Literal["float32", "bfloat16"] = "float32"
    revision: str | None = None


class MBeirSection(_Section):
    """Instructed queries of an M-BEIR tree (a real one, or World)."""

    kind: Literal["mbeir"]
    path: str
    settings: list[str] | None = None
    """Names such as `cirr_task7`; all training settings when None."""
    instructions: Literal["seeded", "first", "none"] = "seeded"
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Share of a setting relative to its number of queries; 1 when not named. To leave one out, list the others as `settings`."""
    negatives_for: list[str] | None = None
    """Settings whose queries bring `loss.negatives` explicit negatives; all when None."""
    on_error: Literal["fail", "skip"] = "fail"


class CaptionsSection(_Section):
    """Caption -> image pairs (JSONL)."""

    kind: Literal["captions"]
    path: str
    weight: float = Field(1.0, gt=0)


class TextPairsSection(_Section):
    """Sentence -> entailed sentence pairs (CSV with sent0, sent1, hard_neg)."""

    kind: Literal["text_pairs"]
    path: str
    weight: float = Field(1.0, gt=0)


DataSection = Annotated[MBeirSection | CaptionsSection | TextPairsSection, Field(discriminator="kind")]


class LossSection(_Section):
    """InfoNCE and its temperature."""

    temperature: float = Field(0.05, gt=0)
    """Start value; a model that carries a learned temperature goes on from its own unless this is given."""
    learn_temperature: bool = False
    both_ways: bool = False
    mask_false_negatives: bool = True
    negatives: int = Field(0, ge=0)
    """Explicit hard negatives a query, from the data; 0 for in-batch negatives only."""


class LoraSection(_Section):
    """Low-rank adapters on the linear layers of some parts; everything else is frozen."""

    rank: int = Field(64, ge=1)
    alpha: int = Field(128, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    parts: list[Part] = Field(default=["language"], min_length=1)


class TrainingSection(_Section):
    """The optimisation."""

    batch_size: int = Field(ge=2)
    """Queries in the global batch, over all devices."""
    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    """Passes over the (weighted) data; give this or `steps`."""
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    chunk_tokens: int = Field(16384, ge=1)
    """Padded tokens in one forward pass; larger is faster until memory ends."""
    gradient_cache: bool = True
    """Two forward passes, memory of one chunk; False keeps all chunks' activations and is faster where they fit."""
    tasks_per_batch: int | None = Field(None, ge=1)
    """Draw each batch from so many settings in equal parts, so that in-batch negatives are of the same kind; None mixes all."""
    parts: list[Part] | None = None
    """Train only these parts in full; None for all. Not with lora."""
    lora: LoraSection | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    save_every: int = Field(500, ge=1)
    log_every: int = Field(10, ge=1)
    workers: int = Field(1, ge=0)
    """Background processes that decode and tokenise."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> TrainingSection:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either training.steps or training.epochs")
        if self.lora is not None and self.parts is not None:
            raise ValueError("training.parts has no effect with training.lora, which freezes everything else; use training.lora.parts")
        return self


class Recipe(_Section):
    """A whole training run."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    model: ModelSection
    data: list[DataSection] = Field(min_length=1)
    loss: LossSection = Field(default_factory=lambda: LossSection.model_validate({}))
    training: TrainingSection

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        kinds = {section.kind for section in self.data}
        if self.loss.negatives and kinds == {"captions"}:
            raise ValueError("loss.negatives has no effect: caption data holds no hard negatives")
        return self


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
        key = ".".join(str(part) for part in first["loc"] if part not in ("mbeir", "captions", "text_pairs"))
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
