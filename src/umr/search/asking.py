"""What is searched for: one item, or several parts that are added and subtracted.

Text and image given together are *one* item, which the model reads as a whole: what composed retrieval is trained on ("this shoe, in
red"). Parts with weights are embedded each on its own and added up as vectors, which any model can do and which weighs them against each
other, but no part can refer to another. What is to be avoided is always a part of its own, with a weight below zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from umr.errors import ModelError, RecipeError
from umr.items import Item, Query, Video

if TYPE_CHECKING:
    import PIL.Image

    from umr.protocols import Encoder

    ImageSource: TypeAlias = Path | bytes | PIL.Image.Image
    VideoSource: TypeAlias = Path | Sequence[PIL.Image.Image] | Video

MINUS_WEIGHT = 0.5
"""How much is subtracted of what is to be avoided, unless a `Part` says so: less than what is wanted, since two vectors of one model have
much in common, and taking all of it away leaves noise."""
CANCELLED = 1e-3
"""A sum of parts shorter than this share of its weights has no direction that means anything."""


@dataclass(frozen=True)
class Part:
    """One of the things that make up a question.

    Attributes:
        item: text, an image, a video, or a composed item.
        weight: of its unit vector in the sum; below zero for what is to be avoided.

    Raises:
        RecipeError: a weight that is zero or not finite.
    """

    item: Item
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.item, Item):
            raise RecipeError(f"a part holds an Item, not {type(self.item).__name__}; write Part(Item.of(text=...))")
        if not math.isfinite(self.weight) or self.weight == 0:
            raise RecipeError(f"the weight of a part must be a number other than 0, not {self.weight}")


@dataclass(frozen=True)
class Question:
    """A search, before anything is embedded. Make one with `ask`.

    Attributes:
        parts: at least one of a weight above zero.
        instruction: what to find; shown to the model with every part.
    """

    parts: tuple[Part, ...]
    instruction: str | None = None

    @cached_property
    def wanted(self) -> Item:
        """The parts with a weight above zero as one item: what a reranker reads, and whose modality is that of the question."""
        items = [part.item for part in self.parts if part.weight > 0]
        return items[0] if len(items) == 1 else Item(tuple(piece for item in items for piece in item.parts))

    @property
    def words(self) -> str:
        """What full-text search looks for: the text of the parts with a weight above zero."""
        return self.wanted.text

    @property
    def avoids(self) -> bool:
        """Whether something is subtracted."""
        return any(part.weight < 0 for part in self.parts)

    def vector(self, encoder: Encoder) -> npt.NDArray[np.float32]:
        """Embed the parts as queries and add them up: unit length, float32, shape (D,).

        Raises:
            RecipeError: the parts cancel each other.
            MediaError, RenderError: a part that cannot be embedded.
        """
        items = [part.item for part in self.parts]
        return combined(encoder.encode(items, "query", self.instruction), [part.weight for part in self.parts])


def combined(vectors_PD: npt.NDArray[np.float32], weights_P: Sequence[float]) -> npt.NDArray[np.float32]:
    """The weighted sum of unit vectors, of unit length again: float32, shape (D,).

    Raises:
        RecipeError: they cancel each other.
        ModelError: a vector is not finite.
    """
    if not np.isfinite(vectors_PD).all():
        raise ModelError("the model gave a vector that is not finite for this query; it cannot be searched with")
    if len(vectors_PD) == 1 and weights_P[0] > 0:
        return np.asarray(vectors_PD[0], np.float32)  # the very vector that the model gave
    weights = np.asarray(weights_P, np.float64)
    sum_D = weights @ vectors_PD.astype(np.float64)
    length = float(np.linalg.norm(sum_D))
    if length < CANCELLED * float(np.abs(weights).sum()):
        raise RecipeError("the parts of this query cancel each other; change their weights, or leave out what is subtracted")
    return (sum_D / length).astype(np.float32)


Wanted: TypeAlias = str | Item | Query
Avoided: TypeAlias = str | Item | Part


def ask(
    query: Wanted | None = None,
    *,
    text: str | None = None,
    image: ImageSource | None = None,
    video: VideoSource | None = None,
    instruction: str | None = None,
    minus: Avoided | Sequence[Avoided] | None = None,
    parts: Sequence[Part] | None = None,
) -> Question:
    """A question from plain values.

    Args:
        query: text, or an item, or a `Query`, which brings its instruction.
        text, image, video: make one composed item, where no `query` is given.
        instruction: what to find; `""` for none where the collection has one of its own.
        minus: what to avoid, in words, as an item, or as a `Part`, whose weight is then subtracted. Default weight: `MINUS_WEIGHT`.
        parts: further things, added with their weights. Besides `query` or `text`, `image`, `video`, which together weigh 1.

    Raises:
        RecipeError: nothing to search for, or two ways of saying it.
        MediaError: a source of the wrong type.
    """
    plain = [name for name, value in {"text": text, "image": image, "video": video}.items() if value is not None]
    if query is not None and plain:
        raise RecipeError(f"query and {plain[0]} both say what to search for; put them into one item, or give parts with weights")
    wanted: str | Item | None
    if isinstance(query, Query):
        if instruction is not None:
            raise RecipeError("the query brings its own instruction; leave the other one out")
        wanted, instruction = query.item, query.instruction
    else:
        wanted = query
    composed: Item | None = None
    if wanted is not None:
        composed = wanted if isinstance(wanted, Item) else _text(wanted, "query")
    elif plain:
        if text is not None:
            _text(text, "text")
        composed = Item.of(text=text, image=image, video=video)
    found = ([] if composed is None else [Part(composed)]) + list(parts or ()) + _avoided(minus)
    if not found:
        raise RecipeError("nothing to search for: give text, an image, a video, an item or parts")
    if not any(part.weight > 0 for part in found):
        raise RecipeError("nothing to search for but what to avoid; say what is wanted, too")
    return Question(tuple(found), instruction)


def _text(text: object, name: str) -> Item:
    if not isinstance(text, str):
        raise RecipeError(f"{name} must be text or an Item, not {type(text).__name__}; an image is given as image=Path(...)")
    if not text.strip():
        raise RecipeError(f"{name} is empty; say what to search for")
    return Item.of(text=text)


def _avoided(minus: Avoided | Sequence[Avoided] | None) -> list[Part]:
    if minus is None:
        return []
    several = [minus] if isinstance(minus, str | Item | Part) else list(minus)
    parts = []
    for one in several:
        if isinstance(one, Part):
            if one.weight < 0:
                raise RecipeError(f"minus subtracts by itself; give a weight above zero, not {one.weight}")
            parts.append(Part(one.item, -one.weight))
        else:
            parts.append(Part(one if isinstance(one, Item) else _text(one, "minus"), -MINUS_WEIGHT))
    return parts
