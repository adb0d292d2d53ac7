"""Batches in which each query has a list of candidates of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from umr.rendering.renderer import Rendered, Renderer
from umr.training.batches import RowSet
from umr.training.examples import Example, ListExample


@dataclass(frozen=True)
class ListBatch:
    """One device's share of a step.

    Attributes:
        rows: U distinct rendered rows.
        query_B: row of each query.
        list_BK: row of each candidate, or of `stored_CD` where that is given; -1 where a list is shorter.
        teacher_BK: the teacher's scores, 0 where a list is shorter; None where the first of each list is right and the others wrong.
        stored_CD: vectors of the candidates where they are not embedded.
    """

    rows: list[Rendered]
    query_B: torch.Tensor
    list_BK: torch.Tensor
    teacher_BK: torch.Tensor | None = None
    stored_CD: torch.Tensor | None = None


def build_scored(examples: Sequence[ListExample], renderer: Renderer) -> ListBatch:
    """Render a batch of queries with scored lists.

    Args:
        examples: B examples; vectors are given with all of them or with none.
        renderer: of the model in training.
    """
    rows = RowSet()
    query_B = [rows.place(example.query, example.instruction) for example in examples]
    width = max(len(example.candidates) or len(example.teacher_K) for example in examples)
    teacher_BK = torch.zeros(len(examples), width)
    for index, example in enumerate(examples):
        teacher_BK[index, : len(example.teacher_K)] = torch.from_numpy(example.teacher_K)
    stored = [example.vectors_KD for example in examples if example.vectors_KD is not None]
    if stored:
        ends = np.cumsum([len(vectors) for vectors in stored])
        lists = [range(end - len(vectors), end) for end, vectors in zip(ends.tolist(), stored, strict=True)]
        list_BK = _padded(lists, width)
        return ListBatch(rows.render(renderer), torch.tensor(query_B), list_BK, teacher_BK, torch.from_numpy(np.concatenate(stored)))
    list_BK = _padded([[rows.place(item, None) for item in example.candidates] for example in examples], width)
    return ListBatch(rows.render(renderer), torch.tensor(query_B), list_BK, teacher_BK)


def build_own(examples: Sequence[Example], renderer: Renderer) -> ListBatch:
    """Render a batch of queries, each with its positive and its own negatives."""
    rows = RowSet()
    query_B = [rows.place(example.query, example.instruction) for example in examples]
    lists = [[rows.place(item, None) for item in (example.positive, *example.wrong(example.negatives))] for example in examples]
    return ListBatch(rows.render(renderer), torch.tensor(query_B), _padded(lists, max(map(len, lists))))


def _padded(lists: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    list_BK = torch.full((len(lists), width), -1, dtype=torch.long)
    for index, places in enumerate(lists):
        list_BK[index, : len(places)] = torch.tensor(places, dtype=torch.long)
    return list_BK
