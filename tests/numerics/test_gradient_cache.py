"""Gradient caching gives the gradient of one plain batch."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from numerics.contrastive_batch import batch_of, examples, gradients, largest_difference, loss_of, plain, retriever
from umr.models.batching import pack
from umr.models.parts import PARTS, add_lora, freeze_all_but
from umr.rendering.renderer import Rendered
from umr.training import gradient_cache
from umr.training.batches import RetrievalBatch
from umr.training.objectives import Retriever

TOLERANCE = 1e-6
BUDGETS = (1, 60, 150, 10_000)
"""Tokens a chunk: one row each, several chunks, one chunk."""


@pytest.fixture(scope="module")
def case() -> tuple[Retriever, RetrievalBatch]:
    model, engine = retriever()
    return model.eval(), batch_of([*examples()[0], *examples()[1]], engine)


def chunks_of(batch: RetrievalBatch, budget: int) -> list[list[int]]:
    return pack([len(row.token_ids_L) for row in batch.rows], budget)


def cached(model: Retriever, batch: RetrievalBatch, budget: int, both_ways: bool = False, mask: bool = True, cache: bool = True):
    loss = gradient_cache.backward(
        batch.rows, chunks_of(batch, budget), model.model, lambda rows_UD: loss_of(model, batch, rows_UD, both_ways, mask), cache
    )
    assert not loss.requires_grad
    return loss.item(), gradients(model)


def test_the_budgets_cut_as_they_should(case):
    _, batch = case
    counts = [len(chunks_of(batch, budget)) for budget in BUDGETS]
    assert counts[0] == len(batch.rows) > counts[1] > counts[2] > counts[3] == 1
    assert len({len(chunk) for chunk in chunks_of(batch, 60)}) > 1


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("both_ways", [True, False])
def test_equals_one_plain_batch(case, both_ways: bool, mask: bool, cache: bool):
    model, batch = case
    loss, expected = plain(model, batch, both_ways, mask)
    assert all(tensor.dtype == torch.float64 for tensor in expected.values())
    assert expected["temperature.log_value"] != 0
    for budget in BUDGETS:
        found_loss, found = cached(model, batch, budget, both_ways, mask, cache)
        assert found_loss == pytest.approx(loss, rel=TOLERANCE)
        assert largest_difference(found, expected) <= TOLERANCE, budget


def test_equals_one_plain_batch_with_latent_attention():
    model, engine = retriever(latent=True)
    batch = batch_of([*examples()[0], *examples()[1]], engine)
    loss, expected = plain(model, batch, True, True)
    assert all(tensor.any() for name, tensor in expected.items() if name.startswith("model.latent."))
    for budget in BUDGETS:
        found_loss, found = cached(model, batch, budget, True, True)
        assert found_loss == pytest.approx(loss, rel=TOLERANCE) and largest_difference(found, expected) <= TOLERANCE, budget


def test_masks_and_directions_change_the_gradient(case):
    """Otherwise the test above would not see a loss that ignores them."""
    model, batch = case
    variants = [plain(model, batch, both, mask)[1] for both in (True, False) for mask in (True, False)]
    for index, one in enumerate(variants):
        assert all(largest_difference(other, one) > 1e-2 for other in variants[index + 1 :])


def test_gradients_add_up_over_two_calls(case):
    model, batch = case
    _, expected = plain(model, batch, False, True)
    for _ in range(2):
        gradient_cache.backward(batch.rows, chunks_of(batch, 60), model.model, lambda rows_UD: loss_of(model, batch, rows_UD, False, True))
    assert largest_difference(gradients(model), {name: 2 * tensor for name, tensor in expected.items()}) <= TOLERANCE


class Counting:
    """A forward pass that remembers which rows it has seen, with a graph and without."""

    def __init__(self, model: Retriever) -> None:
        self.model, self.with_graph, self.without = model, Counter(), Counter()

    def __call__(self, rows: Sequence[Rendered]) -> torch.Tensor:
        (self.with_graph if torch.is_grad_enabled() else self.without).update(id(row) for row in rows)
        return self.model.model(rows)


@pytest.mark.parametrize(("cache", "passes_without"), [(True, 1), (False, 0)])
def test_each_distinct_row_is_embedded_once_a_pass(case, cache: bool, passes_without: int):
    model, batch = case
    # 8 queries, 8 positives and 9 negatives make 25 places, but 14 rows: texts, pictures and clips come back on either side.
    assert (len(batch.query_B), len(batch.rows)) == (8, 14)
    forward = Counting(model)
    gradient_cache.backward(batch.rows, chunks_of(batch, 60), forward, lambda rows_UD: loss_of(model, batch, rows_UD, False, True), cache)
    rows = {id(row) for row in batch.rows}
    assert forward.with_graph == Counter(rows)
    assert forward.without == Counter({row: passes_without for row in rows if passes_without})
    model.zero_grad()


def adapted(dropout: float) -> tuple[Retriever, RetrievalBatch]:
    model, engine = retriever()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.model.network = add_lora(model.model.network, 4, 8, dropout, PARTS)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at the start, where A would have no gradient
                torch.nn.init.normal_(parameter, std=0.1)
    return model.double().train(), batch_of([*examples()[0], *examples()[1]], engine)


@pytest.mark.parametrize("budget", BUDGETS[:3])
def test_dropout_draws_the_same_in_both_passes(budget: int):
    model, batch = adapted(dropout=0.3)
    chunks = chunks_of(batch, budget)

    def run(seed: int, cache: bool | None) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        torch.manual_seed(seed)
        if cache is None:  # by hand: the chunks one after the other, all graphs kept
            parts = {
                row: vector for chunk in chunks for row, vector in zip(chunk, model.model([batch.rows[i] for i in chunk]), strict=True)
            }
            loss_of(model, batch, torch.stack([parts[row] for row in range(len(batch.rows))]), True, True).backward()
            return gradients(model), torch.get_rng_state()
        return cached(model, batch, budget, both_ways=True, cache=cache)[1], torch.get_rng_state()

    with torch.random.fork_rng():
        expected, state = run(5, None)
        assert largest_difference(run(6, None)[0], expected) > 0.1, "dropout matters"
        for cache in (True, False):
            found, after = run(5, cache)
            assert largest_difference(found, expected) <= TOLERANCE
            assert torch.equal(after, state), "the second pass leaves the generator where the first did"


def test_frozen_parameters_stay_without_gradient():
    model, batch = adapted(dropout=0.0)
    cached(model, batch, 60)
    gradient_cache.backward(batch.rows, chunks_of(batch, 60), model.model, lambda rows_UD: loss_of(model, batch, rows_UD, False, True))
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name or name == "temperature.log_value"), name


def test_a_fixed_temperature_is_no_obstacle():
    model, engine = retriever(learned=False)
    batch = batch_of(examples()[1], engine)
    _, expected = plain(model, batch, False, True)
    assert largest_difference(cached(model, batch, 60)[1], expected) <= TOLERANCE


@pytest.mark.parametrize("cache", [True, False])
def test_rows_that_reach_no_trained_part_are_no_obstacle(cache: bool):
    model, engine = retriever()
    freeze_all_but(model.model.network, ["vision"])
    mixed, text = batch_of([*examples()[0], *examples()[1]], engine), batch_of(examples()[0], engine)
    _, expected = plain(model, mixed, False, True)
    assert largest_difference(cached(model, mixed, 60, cache=cache)[1], expected) <= TOLERANCE
    _, found = cached(model, text, 60, cache=cache)
    assert {name for name, tensor in found.items() if tensor.any()} == {"temperature.log_value"}
