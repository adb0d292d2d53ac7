"""Batches for a reranker: each query's positive is asked about, some wrong candidates are, and perhaps one question has several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from umr.losses.answers import Questions
from umr.losses.ranking import groups_of
from umr.rendering.pairs import Pair, PairRenderer
from umr.rendering.renderer import Rendered
from umr.training.examples import Example, draw
from umr.training.recipe_sections import RerankSection

YES, NO, FIRST_CHOICE = 0, 1, 2
"""Places among `umr.models.reranker.ANSWERS`."""


@dataclass(frozen=True)
class QuestionBatch:
    """One device's share of a step.

    Attributes:
        rows: R rendered questions.
        questions: what is asked in them.
        query_R: int64, whose candidate a row asks about; -1 for a choice among several. A query's rows lie together, its positive's
            first.
    """

    rows: list[Rendered]
    questions: Questions
    query_R: torch.Tensor

    @property
    def groups(self) -> list[list[int]]:
        """Rows by query; a choice among several is a group of its own."""
        return groups_of(self.query_R)


def build(examples: Sequence[Example], renderer: PairRenderer, loss: RerankSection, seed: int) -> QuestionBatch:
    """Render the questions of B queries.

    Every query weighs the same, and so do its positive and all its negatives together, so that P(Yes) = 1/2 stays even odds whatever
    the number of negatives. A query without negatives gives its positive alone, at half weight. The ranking loss's share is taken off.

    Args:
        examples: queries; those with too few negatives ask less. A choice takes negatives of its own, after those asked about alone.
        renderer: of the model in training.
        loss: what is asked.
        seed: of the places of the right candidates in choices.
    """
    pairs: list[Pair] = []
    asked: list[tuple[int, int, int, float]] = []
    listwise: list[Rendered] = []
    chosen: list[tuple[int, int, int, float]] = []
    half = 0.5 * (1 - loss.ranking)
    whose: list[int] = []
    for number, example in enumerate(examples):
        known = example.wrong(example.negatives)
        wrong = [*known[: loss.negatives], *example.wrong(example.strangers)]
        rest = known[loss.negatives : loss.negatives + loss.choices - 1]
        if loss.negatives or loss.strangers:
            pairs += [Pair(example.query, example.instruction, item) for item in (example.positive, *wrong)]
            asked += [(YES, YES, 2, half), *((NO, YES, 2, half / len(wrong)) for _ in wrong)]
            whose += [number] * (1 + len(wrong))
        if loss.choices and rest:
            right = draw(seed, f"{example.query.id or example.query.digest}/{example.positive.id}/{rest[0].id}", len(rest) + 1)
            shown = [*rest[:right], example.positive, *rest[right:]]
            listwise.append(renderer.render_choices(example.query, example.instruction, shown))
            chosen.append((FIRST_CHOICE + right, FIRST_CHOICE, len(shown), 1.0))
    answer, first, count, weight = zip(*asked, *chosen, strict=True) if asked or chosen else ((), (), (), ())
    questions = Questions(torch.tensor(answer), torch.tensor(first), torch.tensor(count), torch.tensor(weight))
    return QuestionBatch([*renderer.render(pairs), *listwise], questions, torch.tensor(whose + [-1] * len(listwise), dtype=torch.long))
