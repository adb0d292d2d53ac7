"""From the plan of a step to rendered rows: each distinct row of a batch once, with the identities that the loss needs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from umr.errors import UmrError
from umr.items import Item
from umr.losses.infonce import Columns
from umr.rendering.renderer import Rendered, Renderer
from umr.training.plan import Plan
from umr.training.sources import Example, Source


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


def build(examples: Sequence[Example], renderer: Renderer) -> RetrievalBatch:
    """Render a batch.

    Args:
        examples: B examples.
        renderer: of the model in training.
    """
    place: dict[tuple[str, str, str], int] = {}
    items: list[Item] = []
    instructions: list[str | None] = []

    def row_of(item: Item, instruction: str | None, side: str) -> int:
        # Without an instruction a query is rendered as a candidate is, so equal content is one row across the sides.
        key = (item.digest, instruction or "", side if instruction else "")
        if key not in place:
            place[key] = len(items)
            items.append(item)
            instructions.append(instruction)
        return place[key]

    query_B = [row_of(example.query, example.instruction, "query") for example in examples]
    column_of: dict[tuple[str, str], int] = {}
    candidate_C: list[int] = []
    did_C: list[int] = []
    content_C: list[int] = []

    def column(item: Item, space: str) -> int:
        did = item.id or item.digest
        if (space, did) not in column_of:
            column_of[space, did] = len(candidate_C)
            candidate_C.append(row_of(item, None, "candidate"))
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
    rows = renderer.render(items, "query", instructions)
    return RetrievalBatch(rows, torch.tensor(query_B), torch.tensor(candidate_C), columns)


class StepDataset(Dataset[RetrievalBatch | UmrError]):
    """Element `step` is this device's whole share of that step, so that resuming is starting at another element.

    Data that cannot be used is an element too: an exception raised in a worker process would arrive as the text of a traceback.

    Args:
        plan: the schedule.
        sources: what it picks from.
        renderer: of the model in training.
        rank: number of this device.
        world_size: number of devices; each takes every `world_size`-th query of the batch.
    """

    def __init__(self, plan: Plan, sources: Sequence[Source], renderer: Renderer, rank: int = 0, world_size: int = 1) -> None:
        self.plan, self.sources, self.renderer, self.rank, self.world_size = plan, sources, renderer, rank, world_size

    def __len__(self) -> int:
        return self.plan.steps

    def __getitem__(self, step: int) -> RetrievalBatch | UmrError:
        picks = self.plan.batch(step)[self.rank :: self.world_size]
        try:
            examples = [self.sources[pick.source].example(pick.index, pick.epoch) for pick in picks]
            return build(examples, self.renderer)
        except UmrError as error:
            return error


def identity(batches: list[RetrievalBatch | UmrError]) -> RetrievalBatch | UmrError:
    """Collate function for elements that are batches already."""
    return batches[0]
