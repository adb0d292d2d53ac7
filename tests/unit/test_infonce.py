import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.losses.infonce import Columns, false_negatives, false_positives_of_candidates, info_nce


def right_answers(columns: Columns, query: int) -> set[int]:
    """Columns that are right for a query: its target, its positives by id, and copies of these under other ids."""
    dids, contents = columns.did_C.tolist(), columns.content_C.tolist()
    positives = {did for did in columns.positives_BP[query].tolist() if did != 0}
    right = {c for c in range(len(dids)) if dids[c] in positives} | {int(columns.target_B[query])}
    return {c for c in range(len(dids)) if contents[c] in {contents[r] for r in right}}


def naive(q, c, columns: Columns, temperature: float, both_ways: bool, mask: bool) -> float:
    """The loss, one logit at a time, in Python's floats."""
    queries, count = range(len(q)), len(c)
    logit = [[sum(float(a) * float(b) for a, b in zip(q[i], c[j], strict=True)) / temperature for j in range(count)] for i in queries]
    targets = columns.target_B.tolist()
    right = [right_answers(columns, i) if mask else {targets[i]} for i in queries]
    total = 0.0
    for i in queries:
        forward = math.log(sum(math.exp(logit[i][j]) for j in range(count) if j == targets[i] or j not in right[i])) - logit[i][targets[i]]
        rivals = [logit[k][targets[i]] for k in queries if k == i or not mask or targets[i] not in right[k]]
        back = math.log(sum(map(math.exp, rivals))) - logit[i][targets[i]]
        total += (forward + back) / 2 if both_ways else forward
    return total / len(q)


def batch(kind: torch.dtype = torch.float64):
    """Six queries over nine columns with every relation: a shared positive, a copy of a target, of another positive, none."""
    did = torch.tensor([11, 12, 13, 14, 15, 16, 17, 18, 19])
    content = torch.tensor([1, 2, 3, 4, 5, 1, 3, 8, 4])  # 16 copies 11, 17 copies 13, 19 copies 14
    target = torch.tensor([0, 1, 2, 0, 3, 4])
    positives = torch.tensor([[11, 12, 0], [12, 0, 0], [13, 15, 99], [11, 0, 0], [14, 18, 13], [15, 0, 0]])
    generator = torch.Generator().manual_seed(3)
    q, c = (torch.nn.functional.normalize(torch.randn(n, 5, generator=generator, dtype=kind), dim=-1) for n in (6, 9))
    c[5], c[6], c[8] = c[0], c[2], c[3]
    return q, c, Columns(target, did, content, positives)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("temperature", [0.03, 1.0])
def test_equals_one_logit_at_a_time(mask: bool, both_ways: bool, temperature: float):
    q, c, columns = batch()
    loss = info_nce(q, c, columns, temperature, both_ways=both_ways, mask=mask)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(naive(q, c, columns, temperature, both_ways, mask), rel=1e-12)


def test_masks_and_directions_matter():
    q, c, columns = batch()
    losses = {info_nce(q, c, columns, 0.1, both_ways=both, mask=mask).item() for both in (True, False) for mask in (True, False)}
    assert len(losses) == 4
    assert info_nce(q, c, columns, 0.1).item() < info_nce(q, c, columns, 0.1, mask=False).item()


def test_false_negatives_by_hand():
    _, _, columns = batch()
    assert [row.nonzero()[:, 0].tolist() for row in false_negatives(columns)] == [
        [1, 5],  # another positive, and a copy of the target
        [],
        [4, 6],  # another positive, and a copy of the target; 99 is not in the batch
        [5],
        [2, 6, 7, 8],  # two other positives, a copy of one of them, and a copy of the target
        [],
    ]
    shared = false_positives_of_candidates(columns)
    # 0 and 3 have the same positive; 0 also knows the positive of 1, 4 that of 2, 2 that of 5.
    assert [row.nonzero()[:, 0].tolist() for row in shared] == [[3], [0], [4], [0], [], [2]]


def test_rows_of_several_devices_add_up():
    q, c, columns = batch()
    for both in (True, False):
        whole = info_nce(q, c, columns, 0.07, both_ways=both)
        parts = [info_nce(q, c, columns, 0.07, both_ways=both, rows=rows) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
        assert sum(part.item() for part in parts) == pytest.approx(whole.item(), rel=1e-12)
    for rows in (slice(0, 2), slice(3, 6)):
        assert torch.equal(false_negatives(columns, rows), false_negatives(columns)[rows])
        assert torch.equal(false_positives_of_candidates(columns, rows), false_positives_of_candidates(columns)[rows])


@pytest.mark.parametrize("both_ways", [True, False])
def test_gradients_of_vectors_and_temperature_by_finite_differences(both_ways: bool):
    q, c, columns = batch()
    temperature = torch.tensor(0.2, dtype=torch.float64)
    inputs = tuple(tensor.clone().requires_grad_() for tensor in (q, c, temperature))
    assert torch.autograd.gradcheck(lambda q, c, t: info_nce(q, c, columns, t, both_ways=both_ways), inputs)
    leaf = inputs[2]
    info_nce(q, c, columns, leaf, both_ways=both_ways).backward()
    step = 1e-6
    slope = (naive(q, c, columns, 0.2 + step, both_ways, True) - naive(q, c, columns, 0.2 - step, both_ways, True)) / (2 * step)
    assert leaf.grad.item() == pytest.approx(slope, rel=1e-6)


def test_an_excluded_column_has_no_gradient():
    q, c, columns = batch()
    c.requires_grad_()
    info_nce(q, c, columns, 0.1, rows=slice(4, 5)).backward()
    assert torch.equal(c.grad.abs().sum(1) > 0, torch.tensor([1, 1, 0, 1, 1, 1, 0, 0, 0], dtype=torch.bool))


def test_half_precision_vectors_have_single_precision_logits():
    q, c, columns = batch(torch.float32)
    q, c = q.bfloat16(), c.bfloat16()
    loss = info_nce(q, c, columns, 0.01)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive(q.double(), c.double(), columns, 0.01, False, True), rel=2e-6)
    coarse = info_nce((q @ c.T).double(), torch.eye(len(c), dtype=torch.float64), columns, 0.01)
    assert abs(coarse.item() - loss.item()) > 3e-5 * loss.item(), "logits in bfloat16 would be another loss"


@st.composite
def id_structures(draw):
    """Any batch: ids and contents from few values, so that all of them collide."""
    count = draw(st.integers(1, 8))
    did = draw(st.lists(st.integers(1, 12), min_size=count, max_size=count, unique=True))
    content = draw(st.lists(st.integers(1, 5), min_size=count, max_size=count))
    queries = draw(st.integers(1, 6))
    target = draw(st.lists(st.integers(0, count - 1), min_size=queries, max_size=queries))
    others = draw(st.lists(st.lists(st.integers(1, 12), max_size=3), min_size=queries, max_size=queries))
    positives = torch.zeros(queries, 4, dtype=torch.long)
    for row, (place, extra) in enumerate(zip(target, others, strict=True)):
        ids = draw(st.permutations([did[place], *extra]))
        positives[row, : len(ids)] = torch.tensor(ids)
    return Columns(torch.tensor(target), torch.tensor(did), torch.tensor(content), positives)


@settings(max_examples=300, deadline=None)
@given(id_structures())
def test_no_positive_is_ever_a_negative_and_every_other_column_is_one(columns: Columns):
    excluded, shared = false_negatives(columns), false_positives_of_candidates(columns)
    for query, target in enumerate(columns.target_B.tolist()):
        assert {c for c in range(len(columns.did_C)) if excluded[query, c]} == right_answers(columns, query) - {target}
        also_right = {k for k in range(len(columns.target_B)) if target in right_answers(columns, k)}
        assert {k for k in range(len(columns.target_B)) if shared[query, k]} == also_right - {query}


@settings(max_examples=50, deadline=None)
@given(id_structures(), st.booleans())
def test_equals_the_naive_loss_for_any_ids(columns: Columns, both_ways: bool):
    generator = torch.Generator().manual_seed(0)
    count = len(columns.target_B), len(columns.did_C)
    q, c = (torch.nn.functional.normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64), dim=-1) for n in count)
    loss = info_nce(q, c, columns, 0.3, both_ways=both_ways)
    assert loss.item() == pytest.approx(naive(q, c, columns, 0.3, both_ways, True), rel=1e-10, abs=1e-12)
    assert math.isfinite(loss.item())
