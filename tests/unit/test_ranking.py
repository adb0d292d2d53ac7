"""The ranking loss against a loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from umr.losses.ranking import ranking_loss


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=6), st.integers(0, 1000))
def test_each_query_is_a_softmax_over_its_candidates(groups: list[tuple[bool, int]], seed: int):
    query = [number if counted else -1 for number, (counted, size) in enumerate(groups) for _ in range(size)]
    odds_R = (torch.randn(len(query), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3).requires_grad_()
    expected, row = 0.0, 0
    for counted, size in groups:
        if counted:
            expected -= odds_R[row].item() - math.log(sum(math.exp(value) for value in odds_R[row : row + size].tolist()))
        row += size
    found = ranking_loss(odds_R, torch.tensor(query))
    assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    found.backward()
    assert odds_R.grad is not None and bool(odds_R.grad.isfinite().all())
    assert not odds_R.grad[torch.tensor(query) < 0].any()


def test_what_all_candidates_share_makes_no_difference():
    odds_R, query_R = torch.tensor([2.0, -1.0, 0.5, 1.0, 3.0]), torch.tensor([0, 0, 0, 1, 1])
    moved_R = odds_R + torch.tensor([7.0, 7.0, 7.0, -4.0, -4.0])
    assert ranking_loss(moved_R, query_R).item() == pytest.approx(ranking_loss(odds_R, query_R).item(), rel=1e-5)
