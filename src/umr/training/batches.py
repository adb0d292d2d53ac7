"""From the plan of a step to rendered rows: each distinct row of a batch once, with the identities that the loss needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from umr.errors import UmrError
from umr.items import Item
from umr.losses.infonce import Columns
from umr.rendering.renderer import Rendered, Renderer
from umr.training.examples import Example, Source
from umr.training.plan import Plan


@dataclass(frozen=True)
class RetrievalBatch:
    """One device's share of a step.

    Attributes:
        rows: U distinct rendered rows.
        query_B: row of each query.
        candidate_C: row of each column; two columns of equal content share a row.
        columns: identities of the columns.
    """

    rows: list[Rendered]
    query_B: torch.Tensor
    candidate_C: torch.Tensor
    columns: Columns


def hash64(text: str) -> int:
    """A 63-bit hash of an id or a content digest; never 0, which means "none"."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1 or 1


class RowSet:
    """The distinct rows of a batch, numbered as they come up."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], int] = {}
        self._items: list[Item] = []
        self._instructions: list[str | None] = []

    def place(self, item: Item, instruction: str | None) -> int:
        """Number of the row of an item. Without an instruction a query is rendered as a candidate is: equal content is one row."""
        key = (item.digest, instruction or "")
        if key not in self._places:
            self._places[key] = len(self._items)
            self._items.append(item)
            self._instructions.append(instruction)
        return self._places[key]

    def render(self, renderer: Renderer) -> list[Rendered]:
        """All rows in the order of their numbers."""
        return renderer.render(self._items, "query", self._instructions) if self._items else []


def build(examples: Sequence[Example], renderer: Renderer) -> RetrievalBatch:
    """Render a batch.

    Args:
        examples: B examples.
        renderer: of the model in training.
    """
    rows = RowSet()
    query_B = [rows.place(example.query, example.instruction) for example in examples]
    column_of: dict[tuple[str, str], int] = {}
    candidate_C: list[int] = []
    did_C: list[int] = []
    content_C: list[int] = []

    def column(item: Item, space: str) -> int:
        did = item.id or item.digest
        if (space, did) not in column_of:
            column_of[space, did] = len(candidate_C)
            candidate_C.append(rows.place(item, None))
            did_C.append(hash64(f"{space}\0{did}"))
            content_C.append(hash64(item.digest))
        return column_of[space, did]

    target_B = [column(example.positive, example.space) for example in examples]
    for example in examples:
        for negative in example.negatives:
            column(negative, example.space)
    width = max(len(example.positives) for example in examples)
    positives_BP = torch.zeros(len(examples), width, dtype=torch.long)
    for index, example in enumerate(examples):
        positives_BP[index, : len(example.positives)] = torch.tensor([hash64(f"{example.space}\0{did}") for did in example.positives])
    columns = Columns(torch.tensor(target_B), torch.tensor(did_C), torch.tensor(content_C), positives_BP)
    return RetrievalBatch(rows.render(renderer), torch.tensor(query_B), torch.tensor(candidate_C), columns)


class StepDataset(Dataset[Any]):
    """Element `step` is this device's whole share of that step, so that resuming is starting at another element.

    Data that cannot be used is an element too: an exception raised in a worker process would arrive as the text of a traceback.

    Args:
        plan: the schedule.
        sources: what it picks from.
        build: from examples to a batch.
        rank: number of this device.
        world_size: number of devices; each takes every `world_size`-th query of the batch.
    """

    def __init__(
        self, plan: Plan, sources: Sequence[Source[Any]], build: Callable[[list[Any]], Any], rank: int = 0, world_size: int = 1
    ) -> None:
        self.plan, self.sources, self.build, self.rank, self.world_size = plan, sources, build, rank, world_size

    def __len__(self) -> int:
        return self.plan.steps

    def __getitem__(self, step: int) -> Any:
        picks = self.plan.batch(step)[self.rank :: self.world_size]
        try:
            return self.build([self.sources[pick.source].example(pick.index, pick.epoch) for pick in picks])
        except UmrError as error:
            return error


def identity(batches: list[Any]) -> Any:
    """Collate function for elements that are batches already."""
    return batches[0]
