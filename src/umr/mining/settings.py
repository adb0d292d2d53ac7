"""What mining does, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from umr.errors import RecipeError
from umr.mining.limits import RANGES, Limit, modality_named, read_limit

Settings = TypeVar("Settings", bound=BaseModel)


class ModalityAware(BaseModel):
    """Negatives of two sets, as MM-Embed mines them.

    C1 are candidates of a wrong modality that rank above the labelled positive, C2 those of the right modality that pass the filters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    wrong_modality_share: float = Field(0.5, ge=0, le=1)
    """Probability that a negative is drawn from C1. The other set is drawn from where one is empty."""
    right_after_rank: int | None = Field(45, ge=1)
    """Candidates of the right modality count only below this rank; null for no such cut, where filters on scores choose."""


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
    quotas: dict[str, int] | None = Field(None, min_length=1)
    """Negatives of each candidate modality, such as `{image: 1, text: 2}`, none of a modality without one; `negatives` is their sum."""
    modality_aware: ModalityAware | None = None
    """Draw from candidates of a wrong and of the right modality; null for off. Searches the global pool alone, and turns the default of
    `max_similarity` off. Filters on scores judge candidates of the right modality only."""
    max_similarity: Limit = 0.7
    """Drop candidates with a larger cosine to the query; null for no limit. U-MARVEL, Table 5. This and the next two may be mappings by
    modality pair, such as `{text->image: 0.6, other: 0.7}`; without `other`, pairs that are not named have no limit."""
    max_relative: Limit = None
    """Drop candidates that score above this share of the query's positive; 0.95 is usual (NV-Retriever, section 3.1)."""
    margin: Limit = None
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

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Defaults that follow from other settings."""
        if not isinstance(values, Mapping):
            return values
        follow: dict[str, Any] = {}
        if values.get("modality_aware") is not None:
            follow |= {"pools": ("global",), "max_similarity": None}
        counts = quotas.values() if isinstance(quotas := values.get("quotas"), Mapping) else []
        if counts and all(isinstance(count, int) and count > 0 for count in counts):
            follow["negatives"] = sum(counts)
        return {**follow, **values}

    @field_validator(*RANGES, mode="before")
    @classmethod
    def _limit(cls, value: object, info: ValidationInfo) -> Limit:
        return read_limit(value, str(info.field_name))

    @field_validator("quotas")
    @classmethod
    def _named(cls, quotas: dict[str, int] | None) -> dict[str, int] | None:
        if quotas is None:
            return None
        if wrong := [name for name, count in quotas.items() if count < 1]:
            raise ValueError(f"the quota of {wrong[0]} must be at least 1; leave a modality out to have none of it")
        named = {modality_named(name): count for name, count in quotas.items()}
        if len(named) < len(quotas):
            raise ValueError("names a modality twice")
        return named

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
        self._check_quotas()
        self._check_modality_aware(last)
        return self

    def _check_quotas(self) -> None:
        if self.quotas is None:
            return
        if sum(self.quotas.values()) != self.negatives:
            raise ValueError(f"quotas add up to {sum(self.quotas.values())}, but negatives is {self.negatives}; leave negatives out")
        if "global" not in self.pools:
            raise ValueError("quotas need the global pool: a local pool has one modality; add global to pools, or leave quotas out")
        if self.modality_aware is not None:
            raise ValueError("quotas and modality_aware both decide on the modality of negatives; give one of them")

    def _check_modality_aware(self, last: int) -> None:
        if self.modality_aware is None:
            return
        if self.pools != ("global",):
            raise ValueError(
                "modality_aware needs pools [global] alone: a local pool has one modality, and nothing wrong ranks above in it"
            )
        cut = self.modality_aware.right_after_rank
        if cut is not None and cut >= last:
            raise ValueError(f"modality_aware.right_after_rank={cut} leaves nothing of the right modality within rank {last}; lower it")
        if cut is not None and cut < self.min_rank:
            raise ValueError(f"modality_aware.right_after_rank={cut} has no effect with min_rank={self.min_rank}; leave one of them out")

    def for_runs(self, metric: Literal["cosine"] | None) -> MineSettings:
        """The settings for rankings of another system.

        Without a declared metric the scores mean nothing by themselves: filters on them are refused, and the default
        `max_similarity` is off.

        Raises:
            RecipeError: a setting that has no effect here.
        """
        idle = {"pools", "depth", "instruction"} if self.reranker is None else {"pools", "depth"}
        if self.modality_aware is not None:
            idle.remove("pools")  # which says here that the run is a ranking of the whole pool
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
