"""What all kinds of stages have in common, and the values that several of them take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from umr.errors import RecipeError
from umr.pipelines.fingerprints import of_product

Metrics = dict[str, Any]
Pools = Annotated[list[Literal["local", "global"]], Field(min_length=1)]
Dtype = Literal["float32", "bfloat16"]
BatchTokens = Annotated[int | None, Field(ge=1)]


def _known_wording(wording: str) -> str:
    from umr.evaluation.wording import check_wording

    try:
        check_wording(wording)
    except RecipeError as error:
        raise ValueError(str(error)) from error
    return wording


def _known_size(size: str) -> str:
    from umr.store.budget import parse_bytes

    try:
        parse_bytes(size)
    except RecipeError as error:
        raise ValueError(str(error)) from error
    return size


Wording = Annotated[str, AfterValidator(_known_wording)]
Memory = Annotated[str, AfterValidator(_known_size)] | None


class StageKeys(BaseModel):
    """Keys that all stages have. `product` is the name, inside the stage's folder, of what `${name}` stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    product: ClassVar[str]

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")

    def config(self, folder: Path) -> dict[str, Any]:
        """Everything that decides what the stage does, defaults included.

        Args:
            folder: of the pipeline file, which paths of recipes are relative to.
        """
        return self.model_dump(mode="json", exclude={"name", "kind"})

    @staticmethod
    def fingerprint(product: Path) -> str:
        """Of what was made: equal products have equal ones."""
        return of_product(product)
