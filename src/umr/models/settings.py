"""What a model folder says about itself beyond its weights: `umr.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from umr.errors import ModelError
from umr.files import write_text
from umr.models.backbone import QWEN_FAMILIES, Attention, Positions
from umr.rendering.renderer import Pooling

FILE_NAME = "umr.json"


@dataclass(frozen=True)
class ModelSettings:
    """How hidden states become a vector. Part of the fingerprint.

    Attributes:
        attention: direction inside the language model.
        positions: how vision tokens are placed; `"flat"` reproduces the published U-MARVEL weights.
        pooling: which tokens are averaged.
        dimension: length of the vector; None for the hidden size. Shorter vectors are prefixes, scaled to unit length again.
        max_tokens: longest row; longer text is cut.
        temperature: what the training ended with; None when the model was never trained contrastively.
    """

    attention: Attention = "bidirectional"
    positions: Positions = "mrope"
    pooling: Pooling = "mean"
    dimension: int | None = None
    max_tokens: int = 2048
    temperature: float | None = None

    def check(self, family: str, hidden_size: int, where: str | Path) -> None:
        """Raise `ModelError` for a value that does not exist or has no effect on this backbone."""
        for name, allowed in (("attention", Attention), ("positions", Positions), ("pooling", Pooling)):
            if getattr(self, name) not in get_args(allowed):
                raise ModelError(f"{where}: {name}={getattr(self, name)!r}; use one of {', '.join(get_args(allowed))}")
        if self.positions == "flat" and family not in QWEN_FAMILIES:
            raise ModelError(
                f"{where}: positions='flat' has no effect on a {family} backbone, whose positions are flat already; leave it out"
            )
        if self.dimension is not None and not (isinstance(self.dimension, int) and 1 <= self.dimension <= hidden_size):
            raise ModelError(f"{where}: dimension={self.dimension} must lie between 1 and the hidden size, {hidden_size}")
        if not isinstance(self.max_tokens, int) or self.max_tokens < 8:
            raise ModelError(f"{where}: max_tokens={self.max_tokens} is too short for any template; use at least 8")

    def save(self, folder: Path) -> None:
        """Write `umr.json`."""
        write_text(folder / FILE_NAME, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ModelSettings:
        """Read `umr.json`. Raises `ModelError` when it is damaged or of another version."""
        try:
            return cls(**json.loads((folder / FILE_NAME).read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{folder / FILE_NAME}: unreadable settings ({error})") from error
