"""The one contract that store, evaluation and search ask of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from umr.items import Item, QueryText, Side

Vectors = npt.NDArray[np.float32]


@runtime_checkable
class Encoder(Protocol):
    """Turns items into unit vectors; equal items give equal vectors, whatever else is in the call."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash over everything that a vector depends on: weights, template, budgets, dtype."""
        ...

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        """Embed `items` in input order: float32, shape (N, D), rows of unit length."""
        ...


def query_text_of(encoder: object) -> QueryText:
    """How this model wants queries that have an instruction to be cleaned; encoders that do not say want it `"separate"`."""
    wanted: QueryText = getattr(encoder, "query_text", "separate")
    return wanted
