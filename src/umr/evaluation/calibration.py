"""How much is added to the scores of each modality in a mixed pool, and how that was chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from umr import files
from umr.errors import RecipeError
from umr.evaluation.by_modality import Offsets
from umr.evaluation.modality import MODALITIES, Codes, Modality

Offset = Annotated[float, Field(allow_inf_nan=False)]


class Fit(BaseModel):
    """Scores of validation queries in percent, means over settings.

    Attributes:
        main: main metric of each setting.
        mrr: 1 / rank of the first right answer.
        accuracy: first results that have the modality wanted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    main: float
    mrr: float
    accuracy: float


class Calibration(BaseModel):
    """Offsets of a model's scores, as a JSON file holds them. `offsets` is enough to write one by hand.

    Attributes:
        format: 1.
        offsets: by the query's modality and the candidate's; 0 for pairs that are not named.
        split: which queries they were fitted on; never `"test"`.
        retriever: fingerprint of the model they were fitted for; another one is refused.
        data: fingerprint of the data.
        instruction: wording of the instructions.
        tasks: settings whose queries counted.
        before, after: scores of the queries they were fitted on without and with them, by the query's modality.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    offsets: dict[Modality, dict[Modality, Offset]]
    split: str | None = None
    retriever: str | None = None
    data: str | None = None
    instruction: str | None = None
    tasks: tuple[str, ...] | None = None
    before: dict[Modality, Fit] = Field(default_factory=dict)
    after: dict[Modality, Fit] = Field(default_factory=dict)

    @field_validator("split")
    @classmethod
    def _not_test(cls, split: str | None) -> str | None:
        if split == "test":
            raise ValueError("offsets fitted on the test queries would make their scores meaningless: fit them on val")
        return split

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a file. Raises `RecipeError` naming it and what is wrong, such as an unknown modality."""
        try:
            return cls.model_validate_json(Path(path).read_text("utf-8"))
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error.strerror}); `umr calibrate` writes one") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "file"
            raise RecipeError(f"{path}: is no calibration file, {where}: {first['msg']}") from error

    def save(self, path: Path) -> None:
        """Write a file: the same bytes for the same offsets."""
        files.write_text(Path(path), json.dumps(self.model_dump(exclude_none=True), indent=1, sort_keys=True) + "\n")

    def check(self, retriever: str) -> None:
        """Raise `RecipeError` if they were fitted for another model than the one with this fingerprint."""
        if self.retriever not in (None, retriever):
            raise RecipeError(
                f"calibration was fitted for the model {self.retriever[:12]}, and this is {retriever[:12]}; "
                "fit one for this model with `umr calibrate`"
            )

    def offsets_of(self, asked_Q: Codes) -> Offsets:
        """What is added to the scores of each modality for queries of these modalities: shape (Q, M), columns as `MODALITIES`."""
        offsets_MM = np.array([[self._offset(asked, found) for found in MODALITIES] for asked in MODALITIES])
        return np.asarray(offsets_MM[asked_Q], np.float64)

    def _offset(self, asked: Modality, found: Modality) -> float:
        return self.offsets.get(asked, {}).get(found, 0.0)

    @property
    def origin(self) -> dict[str, str]:
        """What they were fitted on, as far as the file says."""
        known = {name: getattr(self, name) for name in ("split", "retriever", "data", "instruction")}
        return {name: value for name, value in known.items() if value is not None}
