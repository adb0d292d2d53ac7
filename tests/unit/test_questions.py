"""From examples to a reranker's questions, with the renderer of a real tiny checkpoint."""

import math
from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from tiny import checkpoint, picture
from umr.items import Item
from umr.models.reranker import Reranker
from umr.rendering.pairs import Pair, PairRenderer
from umr.training.examples import Example
from umr.training.objectives import Reranking
from umr.training.questions import FIRST_CHOICE, NO, YES, QuestionBatch, build
from umr.training.recipe_sections import RerankSection, TrainingSection

RED, BLUE, GREEN = (Item.of(image=picture(64, 64, seed), id=f"1:{seed}") for seed in (1, 2, 3))
WORDS = [Item.of(text=text, id=f"2:{number}") for number, text in enumerate(("a ring", "two of them", "left", "make it blue", "moving"))]


@pytest.fixture(scope="module")
def renderer() -> PairRenderer:
    return Reranker.load(checkpoint("qwen3-vl")).engine.renderer


def asking(negatives: int, choices: int, strangers: int = 0) -> RerankSection:
    return RerankSection(kind="rerank", negatives=negatives, choices=choices, strangers=strangers)


def example(query: Item, positive: Item, *negatives: Item, instruction: str | None = None) -> Example:
    return Example(query, instruction, positive, negatives, (positive.id or "",))


def test_a_positive_is_a_yes_and_each_negative_a_no(renderer: PairRenderer):
    batch = build([example(WORDS[0], RED, BLUE, GREEN, instruction="Find it."), example(WORDS[1], BLUE, RED)], renderer, asking(2, 0), 0)
    expected = renderer.render(
        [
            *(Pair(WORDS[0], "Find it.", item) for item in (RED, BLUE, GREEN)),
            *(Pair(WORDS[1], None, item) for item in (BLUE, RED)),
        ]
    )
    assert all(np.array_equal(a.token_ids_L, b.token_ids_L) for a, b in zip(batch.rows, expected, strict=True))
    assert batch.questions.answer_R.tolist() == [YES, NO, NO, YES, NO]
    assert batch.questions.weight_R.tolist() == [0.5, 0.25, 0.25, 0.5, 0.5]
    assert set(batch.questions.first_R.tolist()) == {YES} and set(batch.questions.count_R.tolist()) == {2}


def test_more_negatives_than_wanted_are_left_out(renderer: PairRenderer):
    assert build([example(WORDS[0], RED, BLUE, GREEN)], renderer, asking(1, 0), 0).questions.answer_R.tolist() == [YES, NO]


def test_a_choice_shows_the_right_one_among_other_negatives(renderer: PairRenderer):
    batch = build([example(WORDS[0], RED, *WORDS[1:])], renderer, asking(1, 4), 0)
    questions = batch.questions
    assert questions.answer_R.tolist()[:2] == [YES, NO] and len(batch.rows) == 3
    assert (questions.first_R[2], questions.count_R[2], questions.weight_R[2]) == (FIRST_CHOICE, 4, 1.0)
    shown = [*WORDS[2:]]
    shown.insert(int(questions.answer_R[2]) - FIRST_CHOICE, RED)
    assert np.array_equal(batch.rows[2].token_ids_L, renderer.render_choices(WORDS[0], None, shown).token_ids_L)


def test_the_right_one_stands_anywhere_but_always_there_for_the_same_question(renderer: PairRenderer):
    queries = [Item.of(text="a ring", id=f"3:{number}") for number in range(60)]
    asked = [example(query, RED, *WORDS[1:4]) for query in queries]
    places = build(asked, renderer, asking(0, 4), 0).questions.answer_R
    assert torch.equal(places, build(asked, renderer, asking(0, 4), 0).questions.answer_R)
    assert not torch.equal(places, build(asked, renderer, asking(0, 4), 1).questions.answer_R)
    assert Counter(places.tolist()).keys() == {2, 3, 4, 5}


def test_a_query_short_of_negatives_asks_less(renderer: PairRenderer):
    alone, few = example(WORDS[0], RED), example(WORDS[1], RED, BLUE, GREEN)
    assert build([alone], renderer, asking(2, 3), 0).questions.answer_R.tolist() == [YES]
    batch = build([few], renderer, asking(1, 5), 0)
    assert batch.questions.count_R.tolist() == [2, 2, 2], "the one negative left makes a choice of two"
    nothing = build([alone], renderer, asking(0, 3), 0)
    assert nothing.rows == [] and nothing.questions.answer_R.tolist() == []


def test_strangers_are_wrong_unless_known_to_be_right(renderer: PairRenderer):
    copy_of_red = Item.of(image=picture(64, 64, 1), id="1:9")
    asked = Example(WORDS[0], None, RED, (BLUE,), ("1:1", "1:3"), "", (copy_of_red, GREEN, BLUE, WORDS[1]))
    batch = build([asked], renderer, asking(0, 0, strangers=2), 0)
    expected = renderer.render([Pair(WORDS[0], None, item) for item in (RED, BLUE, WORDS[1])])
    assert [row.token_ids_L.tolist() for row in batch.rows] == [row.token_ids_L.tolist() for row in expected]
    assert batch.questions.answer_R.tolist() == [YES, NO, NO]
    assert batch.questions.weight_R.tolist() == [0.5, 0.25, 0.25]


def test_neither_a_known_positive_nor_a_copy_of_the_positive_is_ever_wrong(renderer: PairRenderer):
    copy = Item.of(image=picture(64, 64, 1), id="1:9")
    assert copy.digest == RED.digest and copy.id != RED.id
    asked = Example(WORDS[0], None, RED, (copy, BLUE, GREEN, WORDS[1]), (RED.id or "", BLUE.id or ""))
    batch = build([asked], renderer, RerankSection(kind="rerank", negatives=1, choices=3), 0)
    expected = renderer.render([Pair(WORDS[0], None, item) for item in (RED, GREEN)])
    assert batch.questions.answer_R.tolist()[:2] == [YES, NO] and batch.questions.count_R.tolist() == [2, 2, 2]
    assert all(np.array_equal(a.token_ids_L, b.token_ids_L) for a, b in zip(batch.rows, expected, strict=False))
    assert [block.patches_PC.tolist() for row in batch.rows[:2] for block in row.blocks] == [
        block.patches_PC.tolist() for row in expected for block in row.blocks
    ]


def test_a_query_and_its_candidates_stay_together(renderer: PairRenderer):
    loss = RerankSection(kind="rerank", negatives=2, choices=2, ranking=0.5)
    batch = build([example(WORDS[0], RED, BLUE, GREEN, *WORDS[1:]), example(WORDS[1], BLUE, RED)], renderer, loss, 0)
    assert batch.query_R.tolist() == [0, 0, 0, 1, 1, -1]
    assert batch.groups == [[0, 1, 2], [3, 4], [5]]
    assert batch.questions.weight_R.tolist() == [0.25, 0.125, 0.125, 0.25, 0.25, 1.0]


def test_a_ranking_loss_is_the_same_in_chunks_of_any_size():
    model = Reranker.load(checkpoint("qwen3-vl"))
    loss = RerankSection(kind="rerank", negatives=3, strangers=0, ranking=0.5)
    found = []
    for chunk_tokens in (1, 60, 100_000):
        training = TrainingSection(batch_size=3, steps=1, learning_rate=1e-3, chunk_tokens=chunk_tokens)
        objective = Reranking(model.engine.renderer, loss, training)
        batch = objective.build([example(WORDS[0], RED, BLUE, GREEN, WORDS[3]), example(WORDS[1], BLUE, RED), example(WORDS[2], GREEN)])
        model.engine.model.zero_grad()
        value = objective.backward(model.engine.model, batch, nullcontext)
        gradient = torch.cat([p.grad.flatten() for p in model.engine.model.parameters() if p.grad is not None])
        found.append((value, gradient.clone()))
    assert found[0][0].item() == pytest.approx(expected_loss(model, batch, 3), rel=1e-5)
    for value, gradient in found[1:]:
        torch.testing.assert_close(value, found[0][0])
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-4, atol=1e-6)


def expected_loss(model: Reranker, batch: QuestionBatch, queries: int) -> float:
    with torch.no_grad():
        logits_RA = model.engine.model(batch.rows).double()
    odds = (logits_RA[:, YES] - logits_RA[:, NO]).tolist()
    total = 0.0
    for group in batch.groups:
        right, *wrong = (odds[row] for row in group)
        answers = math.log1p(math.exp(-right)) + (sum(math.log1p(math.exp(odd)) for odd in wrong) / len(wrong) if wrong else 0.0)
        total += 0.25 * answers + 0.5 * (math.log(sum(math.exp(odd) for odd in (right, *wrong))) - right)
    return total / queries
