"""What a model folder says about itself beyond its weights: `umr.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from umr.errors import ModelError
from umr.files import write_text
from umr.items import QueryText
from umr.models.backbone import QWEN_FAMILIES, Attention, Positions
from umr.rendering.renderer import Pooling

FILE_NAME = "umr.json"
RERANKER_FILE_NAME = "umr_reranker.json"
_CHOICES = (("attention", Attention), ("positions", Positions), ("pooling", Pooling), ("query_text", QueryText))


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
        query_text: how the text of a benchmark's query is cleaned when it has an instruction; `"joined"` for published U-MARVEL and
            LamRA weights (see `MBeir`).
    """

    attention: Attention = "bidirectional"
    positions: Positions = "mrope"
    pooling: Pooling = "mean"
    dimension: int | None = None
    max_tokens: int = 2048
    temperature: float | None = None
    query_text: QueryText = "separate"

    def check(self, family: str, hidden_size: int, where: str | Path) -> None:
        """Raise `ModelError` for a value that does not exist or has no effect on this backbone."""
        for name, allowed in _CHOICES:
            if getattr(self, name) not in get_args(allowed):
                raise ModelError(f"{where}: {name}={getattr(self, name)!r}; use one of {', '.join(get_args(allowed))}")
        if self.positions == "flat" and family not in QWEN_FAMILIES:
            raise ModelError(
                f"{where}: positions='flat' has no effect on a {family} backbone, whose positions are flat already; leave it out"
            )
        if self.dimension is not None and not (isinstance(self.dimension, int) and 1 <= self.dimension <= hidden_size):
            raise ModelError(f"{where}: dimension={self.dimension} must lie between 1 and the hidden size, {hidden_size}")
        _check_max_tokens(self.max_tokens, where)

    def save(self, folder: Path) -> None:
        """Write `umr.json`."""
        write_text(folder / FILE_NAME, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ModelSettings:
        """Read `umr.json`. Raises `ModelError` when it is damaged or of another version."""
        path = folder / FILE_NAME
        try:
            return cls(**_read(path))
        except TypeError as error:
            raise ModelError(f"{path}: unreadable settings ({error})") from error


@dataclass(frozen=True)
class RerankSettings:
    """How a reranker reads its rows. Part of its fingerprint; saved as `umr_reranker.json`.

    Attributes:
        attention: direction inside the language model; what it was pretrained with, unless it was trained otherwise since.
        max_tokens: longest row; longer texts are cut.
    """

    attention: Attention = "causal"
    max_tokens: int = 2048

    def check(self, where: str | Path) -> None:
        """Raise `ModelError` for a value that does not exist."""
        if self.attention not in get_args(Attention):
            raise ModelError(f"{where}: attention={self.attention!r}; use one of {', '.join(get_args(Attention))}")
        _check_max_tokens(self.max_tokens, where)

    def save(self, folder: Path) -> None:
        """Write `umr_reranker.json`."""
        write_text(folder / RERANKER_FILE_NAME, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> RerankSettings:
        """Read `umr_reranker.json`. Raises `ModelError` when it is damaged or of another version."""
        path = folder / RERANKER_FILE_NAME
        try:
            return cls(**_read(path))
        except TypeError as error:
            raise ModelError(f"{path}: unreadable settings ({error})") from error


def _check_max_tokens(max_tokens: object, where: str | Path) -> None:
    if not isinstance(max_tokens, int) or max_tokens < 8:
        raise ModelError(f"{where}: max_tokens={max_tokens} is too short for any template; use at least 8")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: unreadable settings ({error})") from error
    return found
