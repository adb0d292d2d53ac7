"""A step that trains several lengths at once gives the gradient of as many trainings, one for each length, in fp64."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from numerics.contrastive_batch import batch_of, examples, gradients, largest_difference, plain, retriever
from numerics.test_list_gradients import objective, own_examples, scored_examples, training
from numerics.test_list_gradients import plain as plain_lists
from umr.losses.matryoshka import Prefixes, over_prefixes
from umr.training.objectives import Contrastive, Retriever
from umr.training.recipe_sections import InfoNceSection

TOLERANCE = 1e-6
SHORTER = {8: 2.0, 32: 0.5}
"""Lengths below the tiny model's 128, and the weights of their losses; the whole weighs 1."""
MATRYOSHKA = {"matryoshka": {"dimensions": [*SHORTER], "weights": [*SHORTER.values()]}}


def contrastive(engine, budget: int, cache: bool = True, **loss: object) -> Contrastive:
    section = InfoNceSection.model_validate({"kind": "infonce", **loss})
    return Contrastive(engine.renderer, section, training(chunk_tokens=budget, gradient_cache=cache))


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("both_ways", [True, False])
def test_infonce_equals_a_training_for_each_length(both_ways: bool, mask: bool):
    model, engine = retriever()
    batch = batch_of([*examples()[0], *examples()[1]], engine)
    loss, expected = plain(model, batch, both_ways, mask, SHORTER)
    assert expected["temperature.log_value"] != 0
    alone = plain(model, batch, both_ways, mask)[1]
    assert largest_difference(alone, expected) > 1e-2, "the lengths matter"
    for budget, cache in ((1, True), (60, True), (10_000, True), (60, False)):
        step = contrastive(engine, budget, cache, both_ways=both_ways, mask_false_negatives=mask, **MATRYOSHKA)
        assert step.backward(model, batch, nullcontext).item() == pytest.approx(loss, rel=TOLERANCE)
        assert largest_difference(gradients(model), expected) <= TOLERANCE, budget


def lists_of_each_length(model: Retriever, scored: bool, weights: Mapping[int, float]) -> tuple[float, dict[str, torch.Tensor]]:
    """`plain_lists` with a model that gives vectors of each length in turn, and the weighted means of what comes out."""
    total, settings = 1 + sum(weights.values()), model.model.settings
    loss, sums = 0.0, dict[str, torch.Tensor]()
    for length, weight in {None: 1.0, **weights}.items():
        model.model.settings = replace(settings, dimension=length)
        value, found = plain_lists(model, scored)
        loss += weight / total * value
        sums = {name: sums.get(name, 0) + weight / total * tensor for name, tensor in found.items()}
    model.model.settings = settings
    return loss, sums


@pytest.mark.parametrize("scored", [True, False], ids=["distillation", "own negatives"])
def test_lists_equal_a_training_for_each_length(scored: bool):
    model, _ = retriever()
    loss, expected = lists_of_each_length(model, scored, SHORTER)
    step = objective(training(), scored, **MATRYOSHKA)
    found = step.backward(model, step.build(scored_examples() if scored else own_examples()), nullcontext)
    assert found.item() == pytest.approx(loss, rel=TOLERANCE)
    assert largest_difference(gradients(model), expected) <= TOLERANCE


def test_stored_candidates_are_cut_like_queries():
    model, _ = retriever()
    step = objective(training(), scored=True, **MATRYOSHKA)
    with torch.no_grad():
        vectors = [model.model(step.renderer.render(one.candidates, "candidate")).numpy() for one in scored_examples()]
    stored = [replace(one, candidates=(), vectors_KD=some) for one, some in zip(scored_examples(), vectors, strict=True)]
    loss = step.backward(model, step.build(stored), nullcontext)
    gradients(model)
    temperature, expected = model.temperature().item(), 0.0
    for one, vectors_KD in zip(stored, vectors, strict=True):
        with torch.no_grad():
            query_D = model.model(step.renderer.render([one.query], "query", one.instruction))[0].numpy()
        for length, weight in {None: 1.0, **SHORTER}.items():
            cosine_K = np.array([c[:length] @ query_D[:length] / np.linalg.norm(c[:length]) for c in vectors_KD.astype(float)])
            found_K = np.exp(cosine_K / np.linalg.norm(query_D[:length]) / temperature)
            wanted_K = np.exp(one.teacher_K.astype(float) / temperature)
            wanted_K, found_K = wanted_K / wanted_K.sum(), found_K / found_K.sum()
            expected += weight / 3.5 * float((wanted_K * np.log(wanted_K / found_K)).sum()) / 8
    assert loss.item() == pytest.approx(expected, rel=TOLERANCE)


def test_half_precision_is_cut_in_single():
    q, c = (torch.nn.functional.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(n)), dim=-1) for n in (0, 1))
    seen = []

    def loss(q_BD: torch.Tensor, c_BD: torch.Tensor) -> torch.Tensor:
        seen.append((q_BD.dtype, q_BD.shape[1], q_BD.float().norm(dim=-1)))
        return (q_BD.float() * c_BD.float()).sum()

    over_prefixes(loss, q.bfloat16(), c.bfloat16(), Prefixes((4,), (1.0,)))
    assert [one[:2] for one in seen] == [(torch.bfloat16, 16), (torch.float32, 4)]
    assert torch.allclose(seen[1][2], torch.ones(4), atol=1e-6)
