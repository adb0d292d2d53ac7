"""A reranker's step: gradients in chunks, over devices' shares and with checkpointing, and adapters that are merged when it is saved."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from numerics.contrastive_batch import examples, gradients, largest_difference
from tiny import checkpoint
from umr.losses.answers import answer_loss
from umr.models.reranker import Reranker
from umr.rendering.pairs import Pair
from umr.training import learners
from umr.training import recipe as recipes
from umr.training.examples import Example
from umr.training.questions import FIRST_CHOICE, YES

TOLERANCE = 2e-5
LORA = {"rank": 2, "alpha": 4, "dropout": 0.0, "parts": ["language"]}


def batch() -> list[Example]:
    """Eight queries, some without a negative, so that shares of two devices differ in their number of questions."""
    first, second = examples()
    return [*first, *second]


def learner(**training: Any) -> learners.RerankerLearner:
    section = {"batch_size": 8, "steps": 1, "learning_rate": 1, "chunk_tokens": 400, **training}
    data = [{"kind": "mbeir", "path": "not read"}]
    loss = {"kind": "rerank", "negatives": 1, "choices": 3}
    model = {"path": str(checkpoint("qwen3-vl"))}
    torch.manual_seed(0)  # of the adapters
    made = learners.load(recipes.parse({"name": "x", "model": model, "data": data, "loss": loss, "training": section}, "recipe"))
    assert isinstance(made, learners.RerankerLearner)
    draw = torch.Generator().manual_seed(0)
    for name, parameter in made.module.named_parameters():
        if ".lora_B." in name:  # zero at the start, which would hide everything below it
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.05
    made.module.train()
    return made


def step(made: learners.RerankerLearner, share: list[Example]) -> float:
    return float(made.objective.backward(made.module, made.objective.build(share), nullcontext))


@pytest.fixture(scope="module")
def expected() -> tuple[float, dict[str, torch.Tensor]]:
    """Everything at once."""
    made = learner(chunk_tokens=100_000)
    asked = made.objective.build(batch())
    assert {YES, FIRST_CHOICE} == set(asked.questions.first_R.tolist()), "choices and single candidates"
    loss = answer_loss(made.module(asked.rows), asked.questions) / 8
    loss.backward()
    return loss.item(), gradients(made.module)


@pytest.mark.parametrize("chunk_tokens", [1, 400, 100_000])
def test_chunks_add_up_to_the_gradient_of_the_whole_batch(expected: tuple[float, dict[str, torch.Tensor]], chunk_tokens: int):
    made = learner(chunk_tokens=chunk_tokens)
    assert step(made, batch()) == pytest.approx(expected[0], rel=1e-5)
    assert largest_difference(gradients(made.module), expected[1]) <= TOLERANCE


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_shares_add_up_to_the_gradient_of_the_whole_batch(expected: tuple[float, dict[str, torch.Tensor]], devices: int):
    made = learner()
    assert sum(step(made, batch()[rank::devices]) for rank in range(devices)) == pytest.approx(expected[0], rel=1e-5)
    assert largest_difference(gradients(made.module), expected[1]) <= TOLERANCE


def test_a_share_without_any_question_adds_nothing():
    made = learner()
    alone = [Example(one.query, None, one.positive, (), one.positives) for one in batch()[:1]]
    made.objective.loss = made.objective.loss.model_copy(update={"negatives": 0, "choices": 3})
    assert step(made, alone) == 0 and all(parameter.grad is None for parameter in made.module.parameters())


def test_checkpointed_adapters_have_the_same_gradient_and_are_merged_when_saved(tmp_path: Path):
    found = {}
    for checkpointing in (False, True):
        made = learner(lora=LORA, gradient_checkpointing=checkpointing)
        loss = step(made, batch())
        found[checkpointing] = (loss, gradients(made.module))
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-6)
    assert all(".lora_" in name for name in found[True][1]) and min(float(one.abs().max()) for one in found[True][1].values()) > 0
    assert largest_difference(found[True][1], found[False][1]) <= TOLERANCE
    pairs = [Pair(one.query, one.instruction, one.positive) for one in batch()]
    made.module.eval()
    with torch.no_grad():
        trained_N = made._reranker.score_pairs(pairs)
    made.save(tmp_path / "model")
    untrained_N = Reranker.load(checkpoint("qwen3-vl")).score_pairs(pairs)
    loaded = Reranker.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.score_pairs(pairs), trained_N, atol=1e-5)
    assert np.abs(untrained_N - trained_N).max() > 1e-3
    before = Reranker.load(checkpoint("qwen3-vl")).engine.model.network
    after = loaded.engine.model.network
    assert torch.equal(before.get_output_embeddings().weight, after.get_output_embeddings().weight), "the head has no adapter"
