"""What is asked of an engine, whatever it is, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from umr.engines.golden import Golden


@dataclass
class Answers:
    """Vectors of an engine.

    Attributes:
        vectors: by the names of rows, each (D,), as the engine gave them.
        left_out: why a row has none, by its name.
    """

    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """A program that embeds.

    Attributes:
        name: what it is called in tables.
        about: facts that a report should hold, such as the name and the fingerprint of the model it serves.
    """

    name: str
    about: dict[str, str]

    def embed(self, rows: Sequence[Golden]) -> Answers:
        """Embed what it can. Raises `UmrError` when it cannot be asked at all."""
        ...
