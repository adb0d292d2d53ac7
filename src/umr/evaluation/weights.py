"""How much a reranker's P(Yes) counts beside the cosine, setting by setting, and how that was chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from umr import files
from umr.errors import RecipeError

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Point(BaseModel):
    """Scores in percent at one weight: the mean of the pools' main metrics, and of their MRR."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: Weight
    main: float
    mrr: float


class Weights(BaseModel):
    """Fusion weights, as a JSON file holds them. `default` and `weights` are enough to write one by hand.

    Attributes:
        format: 1.
        default: for settings that `weights` does not name; the best common weight where the file was chosen by `choose_weights`.
        weights: by setting.
        split: which queries they were chosen on; never `"test"`.
        retriever: fingerprint of the retriever they were chosen for.
        reranker: fingerprint of the reranker they were chosen for.
        data: fingerprint of the data.
        depth: candidates reranked.
        pools: pools whose mean was looked at.
        curve: scores at every weight tried, by setting.
        common: their means over settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    default: Weight = 1.0
    weights: dict[str, Weight] = Field(default_factory=dict)
    split: str | None = None
    retriever: str | None = None
    reranker: str | None = None
    data: str | None = None
    depth: int | None = None
    pools: tuple[str, ...] | None = None
    curve: dict[str, tuple[Point, ...]] = Field(default_factory=dict)
    common: tuple[Point, ...] = ()

    @field_validator("split")
    @classmethod
    def _not_test(cls, split: str | None) -> str | None:
        if split == "test":
            raise ValueError("weights chosen on the test queries would make their scores meaningless: choose them on val")
        return split

    @classmethod
    def load(cls, path: Path) -> Weights:
        """Read a file. Raises `RecipeError` naming it and what is wrong, such as a weight below 0 or an unknown key."""
        try:
            return cls.model_validate_json(Path(path).read_text("utf-8"))
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error.strerror}); `umr eval --choose-weights` writes one") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "file"
            raise RecipeError(f"{path}: is no weights file, {where}: {first['msg']}") from error

    def save(self, path: Path) -> None:
        """Write a file: the same bytes for the same weights."""
        files.write_text(Path(path), json.dumps(self.model_dump(exclude_none=True), indent=1, sort_keys=True) + "\n")

    def of(self, setting: str) -> float:
        """The weight of a setting."""
        return self.weights.get(setting, self.default)

    def check(self, retriever: str, reranker: str) -> None:
        """Raise `RecipeError` if they were chosen for other models than those with these fingerprints. A file by hand fits any."""
        for role, chosen_for, this in (("retriever", self.retriever, retriever), ("reranker", self.reranker, reranker)):
            if chosen_for not in (None, this):
                raise RecipeError(
                    f"weights were chosen for the {role} {chosen_for[:12]}, and this is {this[:12]}; "
                    "choose them anew, or say weights_of_another_model"
                )

    @property
    def origin(self) -> dict[str, str]:
        """What they were chosen on, as far as the file says."""
        known = {name: getattr(self, name) for name in ("split", "retriever", "reranker", "data")}
        return {name: value for name, value in known.items() if value is not None}
