"""One piece of a corpus: its items embedded, and written where the coordinator finds it. The same code under every engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from umr.bulk.corpus import Corpus
from umr.errors import MediaError, ModelError, RenderError
from umr.items import Item, Side, Text
from umr.protocols import Encoder, Vectors
from umr.store.embedding import ITEMS_PER_CALL
from umr.store.pieces import Pieces
from umr.store.shard_files import shard_contents

OnError: TypeAlias = Literal["fail", "skip"]
Load: TypeAlias = Callable[[str | None], Encoder]
"""Loads the model on a device, by default on the best one. Sent to the workers."""
Refused: TypeAlias = tuple[Item, str]
"""An item that cannot be embedded, and why."""


@dataclass(frozen=True)
class ModelFolder:
    """An embedder as `Embedder.load` takes it; a `Load`."""

    path: str
    dtype: str = "float32"
    batch_tokens: int | None = None
    revision: str | None = None

    def __call__(self, device: str | None = None) -> Encoder:
        """Load it."""
        from umr.models.embedder import Embedder

        return Embedder.load(self.path, dtype=self.dtype, batch_tokens=self.batch_tokens, revision=self.revision, device=device)


@dataclass(frozen=True)
class Work:
    """Everything that a worker must know, sent to it once.

    Attributes:
        store: folder of the store.
        fingerprint: of the model that its vectors are of.
        dimension: of those.
        load: loads that model.
        corpus: what is embedded.
        side: as which side.
        instructions: one a position, one for all, or None.
        rows: positions a piece.
        on_error: what is done about items that cannot be opened or rendered.
    """

    store: Path
    fingerprint: str
    dimension: int
    load: Load
    corpus: Corpus
    side: Side
    instructions: Sequence[str | None] | str | None
    rows: int
    on_error: OnError

    @property
    def pieces(self) -> int:
        """How many there are."""
        return -(-len(self.corpus.ids) // self.rows)

    def range(self, number: int) -> tuple[int, int]:
        """The positions of a piece."""
        return number * self.rows, min((number + 1) * self.rows, len(self.corpus.ids))

    def begin(self) -> Worker:
        """A worker with a model of its own; `Work` is a `umr.bulk.job.Job`, whose tasks are numbers of pieces."""
        return Worker(self, self.load(None))

    def describe(self, number: int) -> str:
        """A piece in a message."""
        start, stop = self.range(number)
        return f"items {self.corpus.ids[start]!r} to {self.corpus.ids[stop - 1]!r}"


class Worker:
    """Makes pieces with a model.

    Args:
        work: what to do.
        encoder: its model.

    Raises:
        ModelError: this machine's model is not the one that the vectors are of.
    """

    def __init__(self, work: Work, encoder: Encoder) -> None:
        self._work, self._encoder = work, encoder
        self._pieces = Pieces(work.store)
        if self._encoder.fingerprint != work.fingerprint:
            raise ModelError(
                f"the model of this worker has the fingerprint {self._encoder.fingerprint}, that of the others is {work.fingerprint}; "
                "give every machine the same files"
            )

    def __call__(self, number: int) -> int:
        """Make a piece unless it is there, and say how many positions it covers.

        Raises:
            UmrError: an item cannot be embedded, or nothing can be written.
        """
        start, stop = self._work.range(number)
        if not self._pieces.has(number):
            kept: list[Item] = []
            parts: list[Vectors] = []
            refused: list[Refused] = []
            for first in range(start, stop, ITEMS_PER_CALL):
                some, vectors_ND, bad = self._embed(first, min(first + ITEMS_PER_CALL, stop))
                kept, parts, refused = kept + some, [*parts, vectors_ND], refused + bad
            contents = shard_contents(number, [item.id or "" for item in kept], [item.modality for item in kept], np.concatenate(parts))
            if refused:
                contents[rejected_name(number)] = _rejected(refused)
            self._pieces.put(number, len(kept), contents)
        return stop - start

    def _embed(self, start: int, stop: int) -> tuple[list[Item], Vectors, list[Refused]]:
        """Positions `start` to `stop`, in groups that follow from the data alone, so that the same bytes come out whoever does it."""
        work = self._work
        items = [_named(item, id) for item, id in zip(work.corpus.fetch(start, stop), work.corpus.ids[start:stop], strict=True)]
        told = work.instructions
        instructions = [told] * len(items) if told is None or isinstance(told, str) else list(told[start:stop])
        if work.on_error == "fail":
            return items, self._encoder.encode(items, work.side, instructions), []
        return self._willing(items, instructions)

    def _willing(self, items: list[Item], instructions: list[str | None]) -> tuple[list[Item], Vectors, list[Refused]]:
        """The items that the model takes; where it refuses some, they are looked for by opening all, then by halves."""
        try:
            if items:
                return items, self._encoder.encode(items, self._work.side, instructions), []
        except (MediaError, RenderError) as error:
            if len(items) == 1:
                return [], self._none(), [(items[0], _line(error))]
            faults = [_fault(item) for item in items]
            bad = [(item, fault) for item, fault in zip(items, faults, strict=True) if fault]
            if bad:
                good = [place for place, fault in enumerate(faults) if not fault]
                kept, vectors_ND, more = self._willing([items[one] for one in good], [instructions[one] for one in good])
                return kept, vectors_ND, bad + more
            half = len(items) // 2
            first, second = self._willing(items[:half], instructions[:half]), self._willing(items[half:], instructions[half:])
            return first[0] + second[0], np.concatenate([first[1], second[1]]), first[2] + second[2]
        return [], self._none(), []

    def _none(self) -> Vectors:
        return np.zeros((0, self._work.dimension), np.float32)


def rejected_name(number: int) -> str:
    """The file of a shard that lists what was left out of it: JSON lines with `id` and `reason`."""
    return f"{number:05d}.rejected.jsonl"


def _rejected(refused: Sequence[Refused]) -> bytes:
    return "".join(json.dumps({"id": item.id, "reason": reason}) + "\n" for item, reason in refused).encode()


def _named(item: Item, id: str) -> Item:
    return item if item.id == id else Item(item.parts, id)


def _fault(item: Item) -> str:
    """Why its media cannot be opened; `""` when they can."""
    try:
        for part in item.parts:
            if not isinstance(part, Text):
                part.open() if part.modality == "image" else part.frames()  # type: ignore[union-attr]
    except MediaError as error:
        return _line(error)
    return ""


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
