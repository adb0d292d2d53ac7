"""What mining does, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from umr.errors import RecipeError

Settings = TypeVar("Settings", bound=BaseModel)


class MineSettings(BaseModel):
    """Settings of `umr.mining.mine.mine`. A candidate must pass every filter that is on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pools: tuple[Literal["local", "global"], ...] = Field(("local", "global"), min_length=1)
    """Candidates of the query's own data set and target modality, or the whole training pool; a query's lists are merged."""
    depth: int = Field(100, ge=1)
    """Results a query and pool."""
    negatives: int = Field(5, ge=1)
    """At most so many a query; fewer where fewer pass the filters."""
    select: Literal["top", "random"] = "top"
    """Those that were found first, or a draw among all that pass the filters, seeded by qid."""
    max_similarity: float | None = Field(0.7, gt=-1, lt=1)
    """Drop candidates with a larger cosine to the query; null for no limit. U-MARVEL, Table 5."""
    max_relative: float | None = Field(None, gt=0, le=1)
    """Drop candidates that score above this share of the query's positive; 0.95 is usual (NV-Retriever, section 3.1)."""
    margin: float | None = Field(None, ge=0)
    """Drop candidates that score above the positive's score less this."""
    min_rank: int = Field(1, ge=1)
    """Drop candidates found earlier; ranks count from 1, positives included."""
    max_rank: int | None = Field(None, ge=1)
    """Drop candidates found later."""
    reranker: str | None = None
    """Model folder or hub id of a reranker that looks at what would be kept."""
    max_yes: float | None = Field(None, gt=0, lt=1)
    """Drop candidates that the reranker calls right with a larger probability."""
    settings: tuple[str, ...] | None = Field(None, min_length=1)
    """Names of training settings; all when null."""
    instruction: Literal["first", "seeded"] = "first"
    """Wording that a query is embedded with."""
    fraction: float = Field(1.0, gt=0, le=1)
    """Share of each setting's queries, drawn by a hash of qid and seed."""
    seed: int = 42

    @model_validator(mode="after")
    def _check(self) -> MineSettings:
        last = self.depth if self.max_rank is None else self.max_rank
        if len(set(self.pools)) < len(self.pools):
            raise ValueError("pools names a pool twice")
        if self.max_rank is not None and self.max_rank > self.depth:
            raise ValueError(f"max_rank={self.max_rank} has no effect with depth={self.depth}; raise depth, or leave max_rank out")
        if last < self.min_rank:
            raise ValueError(f"nothing lies between min_rank={self.min_rank} and rank {last}")
        if (self.reranker is None) != (self.max_yes is None):
            raise ValueError("reranker and max_yes have no effect without each other; give both or neither")
        return self

    def for_runs(self, metric: Literal["cosine"] | None) -> MineSettings:
        """The settings for rankings of another system.

        Without a declared metric the scores mean nothing by themselves: filters on them are refused, and the default
        `max_similarity` is off.

        Raises:
            RecipeError: a setting that has no effect here.
        """
        idle = {"pools", "depth", "instruction"} if self.reranker is None else {"pools", "depth"}
        if given := sorted(idle & self.model_fields_set):
            raise RecipeError(f"{given[0]} has no effect with run files, whose rankings are as they are; leave it out")
        if metric == "cosine":
            return self
        on = {name: getattr(self, name) for name in ("max_similarity", "max_relative", "margin")}
        for name, value in on.items():
            if value is not None and name in self.model_fields_set:
                raise RecipeError(f"{name} needs scores that are cosines: declare the metric of the run files as cosine, or leave it out")
        return self.model_copy(update={"max_similarity": None})


def parse(values: Mapping[str, Any], where: str = "mining") -> MineSettings:
    """Check settings given as plain data. Raises `RecipeError` naming the first bad key."""
    return checked(MineSettings, values, where)


def checked(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Settings of any kind from plain data. Raises `RecipeError` naming the first bad key."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{where}: unknown key {key!r}; remove it or correct its name") from error
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{where}: {key + ': ' if key else ''}{message}") from error


def from_words(words: Sequence[str]) -> MineSettings:
    """Settings from words such as `max_similarity=0.8`; values are YAML. Raises `RecipeError`."""
    values: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise RecipeError(f"{word!r}: a setting is written key=value, such as max_similarity=0.8")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"{word!r}: not valid YAML ({' '.join(str(error).split())})") from error
    return parse(values)
