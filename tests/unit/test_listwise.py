"""Losses over a query's own list, against loops in double precision."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from umr.losses.listwise import distillation, list_cosines, own_infonce


def lists_of(lengths: list[int], width: int, candidates: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, candidates, lists and teacher scores."""
    draw = torch.Generator().manual_seed(seed)
    q_BD, c_CD = (
        torch.nn.functional.normalize(torch.randn(n, 6, generator=draw, dtype=torch.float64), dim=1) for n in (len(lengths), candidates)
    )
    list_BK = torch.full((len(lengths), width), -1)
    for row, length in enumerate(lengths):
        list_BK[row, :length] = torch.randperm(candidates, generator=draw)[:length]
    return q_BD, c_CD, list_BK, torch.rand(len(lengths), width, generator=draw, dtype=torch.float64) * 2 - 1


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.floats(0.02, 1.0), st.integers(0, 1000))
def test_distillation_is_the_divergence_of_two_softmaxes(lengths: list[int], temperature: float, seed: int):
    q_BD, c_CD, list_BK, teacher_BK = lists_of(lengths, 5, 9, seed)
    expected = 0.0
    for row, length in enumerate(lengths):
        student = softmax([float(q_BD[row] @ c_CD[int(place)]) / temperature for place in list_BK[row, :length]])
        teacher = softmax([float(score) / temperature for score in teacher_BK[row, :length]])
        expected += sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True) if t > 0)
    found = distillation(list_cosines(q_BD, c_CD, list_BK), teacher_BK, torch.tensor(temperature, dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 1000))
def test_infonce_over_ones_own_list_takes_the_first_as_right(lengths: list[int], seed: int):
    q_BD, c_CD, list_BK, _ = lists_of(lengths, 5, 9, seed)
    expected = 0.0
    for row, length in enumerate(lengths):
        expected -= math.log(softmax([float(q_BD[row] @ c_CD[int(place)]) / 0.1 for place in list_BK[row, :length]])[0])
    found = own_infonce(list_cosines(q_BD, c_CD, list_BK), torch.tensor(0.1, dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_temperature_learns_through_the_student_alone():
    q_BD, c_CD, list_BK, teacher_BK = lists_of([4, 2, 5], 5, 9, 3)
    log_value = torch.tensor(math.log(0.1), dtype=torch.float64, requires_grad=True)

    def student_only(value: torch.Tensor) -> torch.Tensor:
        cosine_BK = list_cosines(q_BD, c_CD, list_BK).masked_fill(list_BK < 0, 0.0)
        fixed = torch.tensor(0.1, dtype=torch.float64)
        wanted = (teacher_BK / fixed).masked_fill(list_BK < 0, -torch.inf).softmax(1)
        logits = (cosine_BK / value).masked_fill(list_BK < 0, -torch.inf)
        log_found = logits.log_softmax(1).masked_fill(list_BK < 0, 0.0)
        return (torch.special.xlogy(wanted, wanted) - wanted * log_found).sum()

    distillation(list_cosines(q_BD, c_CD, list_BK), teacher_BK, log_value.exp()).backward()
    found, log_value.grad = log_value.grad, None
    student_only(log_value.exp()).backward()
    assert found.item() == pytest.approx(log_value.grad.item(), rel=1e-12) and abs(found.item()) > 1e-3


def test_a_student_that_agrees_has_no_loss_and_gradients_are_finite_beside_missing_candidates():
    q_BD, c_CD, list_BK, _ = lists_of([4, 1], 4, 9, 5)
    c_CD.requires_grad_()
    cosine_BK = list_cosines(q_BD, c_CD, list_BK)
    loss = distillation(cosine_BK, torch.nan_to_num(cosine_BK.detach(), neginf=7.0), torch.tensor(0.05, dtype=torch.float64))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert c_CD.grad.isfinite().all() and c_CD.grad.abs().max() < 1e-9
