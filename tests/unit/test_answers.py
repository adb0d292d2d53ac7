"""The reranker's loss against a loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from umr.losses.answers import Questions, answer_loss

ROWS = st.lists(st.tuples(st.booleans(), st.integers(2, 5), st.integers(0, 4), st.floats(0.1, 2)), min_size=1, max_size=6)


@given(ROWS, st.integers(0, 1000))
def test_each_row_is_a_softmax_over_what_it_may_answer(rows: list[tuple[bool, int, int, float]], seed: int):
    logits_RA = torch.randn(len(rows), 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    asked, expected = [], 0.0
    for row, (listwise, count, answer, weight) in enumerate(rows):
        first, count = (2, count) if listwise else (0, 2)
        answer = first + answer % count
        asked.append((answer, first, count, weight))
        allowed = logits_RA[row, first : first + count].tolist()
        expected -= weight * (logits_RA[row, answer].item() - math.log(sum(map(math.exp, allowed))))
    questions = Questions(*(torch.tensor(column) for column in zip(*asked, strict=True)))
    assert answer_loss(logits_RA, questions).item() == pytest.approx(expected, rel=1e-6)


def test_other_answers_get_no_gradient():
    logits_RA = torch.zeros(1, 7, requires_grad=True)
    answer_loss(logits_RA, Questions(*(torch.tensor([value]) for value in (3, 2, 4, 1.0)))).backward()
    assert logits_RA.grad[0].tolist() == [0, 0, 0.25, -0.75, 0.25, 0.25, 0]
