"""What a training example is, and what gives examples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from umr.items import Item

E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True)
class Example:
    """A query with one positive and some negatives.

    Attributes:
        query: what is searched with.
        instruction: its instruction, if any.
        positive: a right answer; its id is the did.
        negatives: wrong answers, ids alike.
        positives: ids of all known right answers: none of them is used as a negative.
        space: what the ids are unique in: two data sets may both have a candidate 17.
        strangers: answers to other queries, drawn at random: easy wrong answers.
    """

    query: Item
    instruction: str | None
    positive: Item
    negatives: tuple[Item, ...]
    positives: tuple[str, ...]
    space: str = ""
    strangers: tuple[Item, ...] = ()

    def wrong(self, items: tuple[Item, ...]) -> tuple[Item, ...]:
        """The items without what is right after all: known positives, and copies of the positive under another id."""
        return tuple(item for item in items if item.id not in self.positives and item.digest != self.positive.digest)


@dataclass(frozen=True)
class ListExample:
    """A query with its own list of candidates, and what a teacher thinks of them.

    Attributes:
        query: what is searched with.
        instruction: its instruction, if any.
        candidates: K of them.
        teacher_K: their scores on the scale of a cosine, fp32.
        vectors_KD: their vectors where they are not to be embedded anew.
    """

    query: Item
    instruction: str | None
    candidates: tuple[Item, ...]
    teacher_K: npt.NDArray[np.float32]
    vectors_KD: npt.NDArray[np.float32] | None = None


class Source(Protocol[E_co]):
    """Random access to examples; the same (index, epoch) always gives the same example."""

    name: str

    def __len__(self) -> int: ...

    def example(self, index: int, epoch: int) -> E_co:
        """Example `index` in pass `epoch`."""
        ...


def draw(seed: int, key: str, count: int) -> int:
    """A number below `count`, by hash: the same on every machine and in every order."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest(), "little") % count
