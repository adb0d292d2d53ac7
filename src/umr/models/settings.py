"""What a model folder says about itself beyond its weights: `umr.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from umr.errors import ModelError
from umr.files import write_text
from umr.items import QueryText
from umr.models import llava
from umr.models.backbone import QWEN_FAMILIES, Attention, Positions
from umr.models.latent_attention import LatentSizes
from umr.rendering.llava_vision import ImageTiles
from umr.rendering.renderer import Pooling

FILE_NAME = "umr.json"
RERANKER_FILE_NAME = "umr_reranker.json"
_CHOICES = {"attention": Attention, "positions": Positions, "pooling": Pooling, "query_text": QueryText, "image_tiles": ImageTiles}


@dataclass(frozen=True)
class ModelSettings:
    """How hidden states become a vector. Part of the fingerprint.

    Attributes:
        attention: direction inside the language model.
        positions: how vision tokens are placed; `"flat"` reproduces the published U-MARVEL weights.
        pooling: which tokens are averaged, and whether latent attention comes before (`"latent"`).
        dimension: length of the vector; None for the hidden size. Shorter vectors are prefixes, scaled to unit length again.
        max_tokens: longest row; longer text is cut.
        temperature: what the training ended with; None when the model was never trained contrastively.
        query_text: how the text of a benchmark's query is cleaned when it has an instruction; `"joined"` for published U-MARVEL and
            LamRA weights (see `MBeir`).
        image_tiles: what LLaVA-NeXT sees of an image, see `LlavaReader`.
        latent: sizes of the latent attention; None for NV-Embed's, and with every other pooling.
        matryoshka: shorter lengths that the last training trained vectors for, longest first. They change no vector.
    """

    attention: Attention = "bidirectional"
    positions: Positions = "mrope"
    pooling: Pooling = "mean"
    dimension: int | None = None
    max_tokens: int = 2048
    temperature: float | None = None
    query_text: QueryText = "separate"
    latent: LatentSizes | None = None
    image_tiles: ImageTiles = "global"
    matryoshka: tuple[int, ...] = ()

    def check(self, family: str, hidden_size: int, where: str | Path) -> None:
        """Raise `ModelError` for a value that does not exist or has no effect on this backbone."""
        _check_choices(self, tuple(_CHOICES), where)
        if self.positions == "flat" and family not in QWEN_FAMILIES:
            raise ModelError(
                f"{where}: positions='flat' has no effect on a {family} backbone, whose positions are flat already; leave it out"
            )
        _check_tiles(self.image_tiles, family, where)
        if self.dimension is not None and not (isinstance(self.dimension, int) and 1 <= self.dimension <= hidden_size):
            raise ModelError(f"{where}: dimension={self.dimension} must lie between 1 and the hidden size, {hidden_size}")
        _check_max_tokens(self.max_tokens, where)
        self._check_latent(where)
        own = self.dimension or hidden_size
        if wrong := [one for one in self.matryoshka if not (isinstance(one, int) and 1 <= one < own)]:
            raise ModelError(f"{where}: matryoshka={wrong[0]!r} must lie between 1 and {own - 1}, below the length of the whole vector")

    def _check_latent(self, where: str | Path) -> None:
        if self.latent is None:
            return
        if self.pooling != "latent":
            raise ModelError(f"{where}: latent has no effect with pooling={self.pooling!r}; leave it out, or set pooling='latent'")
        for name, value in asdict(self.latent).items():
            if not (isinstance(value, int) and value >= 1) and not (name == "head_width" and value is None):
                raise ModelError(f"{where}: latent.{name}={value!r} must be a number of at least 1")

    def text(self) -> str:
        """What vectors depend on, for a fingerprint: not the temperature, which scales scores in training, nor the shorter lengths.

        Settings that came after models had been made are named only where they are not the default: a model keeps its fingerprint.
        """
        old = ("attention", "positions", "pooling", "dimension", "max_tokens", "temperature", "query_text")
        idle = {"temperature": None, "matryoshka": ()}
        kept = {one.name: idle.get(one.name, getattr(self, one.name)) for one in fields(self)}
        named = [f"{one.name}={kept[one.name]!r}" for one in fields(self) if one.name in old or kept[one.name] != one.default]
        return f"ModelSettings({', '.join(named)})"

    def save(self, folder: Path) -> None:
        """Write `umr.json`."""
        write_text(folder / FILE_NAME, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ModelSettings:
        """Read `umr.json`. Raises `ModelError` when it is damaged or of another version."""
        path = folder / FILE_NAME
        try:
            found = _read(path)
            if found.get("latent") is not None:
                found["latent"] = LatentSizes(**found["latent"])
            found["matryoshka"] = tuple(found.get("matryoshka", ()))
            return cls(**found)
        except TypeError as error:
            raise ModelError(f"{path}: unreadable settings ({error})") from error


@dataclass(frozen=True)
class RerankSettings:
    """How a reranker reads its rows. Part of its fingerprint; saved as `umr_reranker.json`.

    Attributes:
        attention: direction inside the language model; what it was pretrained with, unless it was trained otherwise since.
        max_tokens: longest row; longer texts are cut.
        image_tiles: what LLaVA-NeXT sees of an image, see `LlavaReader`.
    """

    attention: Attention = "causal"
    max_tokens: int = 2048
    image_tiles: ImageTiles = "global"

    def check(self, family: str, where: str | Path) -> None:
        """Raise `ModelError` for a value that does not exist or has no effect on this backbone."""
        _check_choices(self, ("attention", "image_tiles"), where)
        _check_tiles(self.image_tiles, family, where)
        _check_max_tokens(self.max_tokens, where)

    def text(self) -> str:
        """What scores depend on, for a fingerprint; tiles, a later setting, only where they are not the default."""
        tiles = "" if self.image_tiles == "global" else f", image_tiles={self.image_tiles!r}"
        return f"RerankSettings(attention={self.attention!r}, max_tokens={self.max_tokens!r}{tiles})"

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


def _check_choices(settings: ModelSettings | RerankSettings, names: tuple[str, ...], where: str | Path) -> None:
    for name in names:
        if getattr(settings, name) not in get_args(_CHOICES[name]):
            raise ModelError(f"{where}: {name}={getattr(settings, name)!r}; use one of {', '.join(get_args(_CHOICES[name]))}")


def _check_tiles(image_tiles: ImageTiles, family: str, where: str | Path) -> None:
    if image_tiles != "global" and family != llava.FAMILY:
        raise ModelError(f"{where}: image_tiles={image_tiles!r} has no effect on a {family} backbone, only on LLaVA-NeXT; leave it out")


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
