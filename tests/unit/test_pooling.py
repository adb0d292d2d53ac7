import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.models.masked_pooling import MaskedMeanPooling
from umr.models.pooling import finish, means


def mean_of(hidden_BLD: torch.Tensor, pool_BL: torch.Tensor) -> torch.Tensor:
    return means(hidden_BLD[pool_BL], pool_BL.sum(1).tolist())


def test_the_mean_is_that_of_the_chosen():
    hidden_BLD = torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pool_BL = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]]).bool()
    expected = np.stack([hidden.numpy()[pool.numpy()].mean(0) for hidden, pool in zip(hidden_BLD, pool_BL, strict=True)])
    out = mean_of(hidden_BLD, pool_BL)
    assert out.dtype == torch.float64 and np.abs(out.numpy() - expected).max() < 1e-12


def test_what_is_left_out_and_other_rows_may_be_anything():
    hidden_BLD = torch.ones(3, 3, 2)
    hidden_BLD[0, 1] = torch.tensor([float("nan"), float("inf")])
    hidden_BLD[1] = float("nan")
    pool_BL = torch.tensor([[True, False, True]]).expand(3, 3)
    out_BD = mean_of(hidden_BLD, pool_BL)
    assert out_BD[::2].tolist() == [[1.0, 1.0]] * 2 and out_BD[1].isnan().all()


def test_half_precision_is_averaged_in_single():
    hidden_BLD = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)
    hidden_BLD[0, 0] = 3.0
    out = mean_of(hidden_BLD, torch.ones(1, 4096, dtype=torch.bool))
    assert out.dtype == torch.float32 and out.item() == pytest.approx(1 + 2 / 4096, rel=1e-6)


def test_gradient_reaches_the_chosen_only():
    hidden_BLD = torch.randn(2, 4, 3, requires_grad=True)
    pool_BL = torch.tensor([[True, True, False, False], [False, False, False, True]])
    finish(mean_of(hidden_BLD, pool_BL))[:, 0].sum().backward()
    assert ((hidden_BLD.grad.abs().sum(-1) > 0) == pool_BL).all()


def test_finish_cuts_then_scales():
    pooled_BD = torch.tensor([[3.0, 4.0, 12.0]])
    assert finish(pooled_BD).tolist() == [pytest.approx([3 / 13, 4 / 13, 12 / 13])]
    assert finish(pooled_BD, 2).tolist() == [pytest.approx([0.6, 0.8])]


# --- the module that a saved folder carries, against a walk over the tokens

START, END, PAD = 1, 2, 0


def naive(ids: list[int], attended: list[int]) -> list[bool]:
    keep, state = [], "before"
    for token, here in zip(ids, attended, strict=True):
        if state == "before" and here and token == START:
            state = "inside"
        keep.append(bool(here) and state != "inside")
        if state == "inside" and token == END:
            state = "after"
    return keep


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.sampled_from([START, END, 3, 4]), min_size=1, max_size=8), min_size=1, max_size=5),
    left=st.booleans(),
)
def test_the_carried_module_leaves_out_the_first_span(rows: list[list[int]], left: bool):
    length = max(map(len, rows)) + 1
    pads = [[PAD] * (length - len(row)) for row in rows]
    ids = [pad + row if left else row + pad for pad, row in zip(pads, rows, strict=True)]
    attended = [[int(token != PAD) for token in row] for row in ids]
    hidden = torch.randn(len(rows), length, 6, dtype=torch.float64)
    features = {"token_embeddings": hidden, "input_ids": torch.tensor(ids), "attention_mask": torch.tensor(attended)}
    out = MaskedMeanPooling(4, START, END)(features)["sentence_embedding"]
    for row, vector, states in zip(zip(ids, attended, strict=True), out, hidden, strict=True):
        keep = naive(*row)
        expected = states[keep].mean(0)[:4] if any(keep) else torch.zeros(4, dtype=torch.float64)
        assert torch.allclose(vector, expected, atol=1e-12)


def test_the_carried_module_without_a_span_averages_all(tmp_path):
    module = MaskedMeanPooling(3, -1, -1)
    features = {"token_embeddings": torch.ones(1, 2, 3), "input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.tensor([[1, 1]])}
    assert module(features)["sentence_embedding"].tolist() == [[1.0, 1.0, 1.0]]
    module.save(str(tmp_path))
    again = MaskedMeanPooling.load(str(tmp_path))
    assert (again.get_embedding_dimension(), again.start_token_id, again.end_token_id) == (3, -1, -1)
