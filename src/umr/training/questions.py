"""Batches for a reranker: each query's positive is asked about, some wrong candidates are, and perhaps one question has several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from umr.losses.answers import Questions
from umr.rendering.pairs import Pair, PairRenderer
from umr.rendering.renderer import Rendered
from umr.training.examples import Example, draw

YES, NO, FIRST_CHOICE = 0, 1, 2
"""Places among `umr.models.reranker.ANSWERS`."""


@dataclass(frozen=True)
class QuestionBatch:
    """One device's share of a step: R rendered questions, and what is asked in them."""

    rows: list[Rendered]
    questions: Questions


def build(examples: Sequence[Example], renderer: PairRenderer, negatives: int, choices: int, seed: int) -> QuestionBatch:
    """Render the questions of B queries.

    Every query weighs the same, and so do its positive and all its negatives together, so that P(Yes) = 1/2 stays even odds whatever
    the number of negatives. A query without negatives gives its positive alone, at half weight.

    Args:
        examples: queries; those with too few negatives ask less.
        renderer: of the model in training.
        negatives: wrong candidates a query.
        choices: candidates of a listwise question; 0 for none. It takes negatives of its own, after those asked about alone.
        seed: of the places of the right candidates.
    """
    pairs: list[Pair] = []
    asked: list[tuple[int, int, int, float]] = []
    listwise: list[Rendered] = []
    chosen: list[tuple[int, int, int, float]] = []
    for example in examples:
        wrong, others = example.negatives[:negatives], example.negatives[negatives : negatives + choices - 1]
        if negatives:
            pairs += [Pair(example.query, example.instruction, item) for item in (example.positive, *wrong)]
            asked += [(YES, YES, 2, 0.5), *((NO, YES, 2, 0.5 / len(wrong)) for _ in wrong)]
        if choices and others:
            right = draw(seed, f"{example.query.id or example.query.digest}/{example.positive.id}/{others[0].id}", len(others) + 1)
            shown = [*others[:right], example.positive, *others[right:]]
            listwise.append(renderer.render_choices(example.query, example.instruction, shown))
            chosen.append((FIRST_CHOICE + right, FIRST_CHOICE, len(shown), 1.0))
    answer, first, count, weight = zip(*asked, *chosen, strict=True) if asked or chosen else ((), (), (), ())
    questions = Questions(torch.tensor(answer), torch.tensor(first), torch.tensor(count), torch.tensor(weight))
    return QuestionBatch([*renderer.render(pairs), *listwise], questions)
