"""Gradients of a step over scored lists and over own negatives, cached and in chunks, against everything at once in fp64."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from numerics.contrastive_batch import examples, gradients, largest_difference, retriever
from umr.items import Item
from umr.training.examples import Example, ListExample
from umr.training.objectives import OwnLists, Retriever
from umr.training.recipe_sections import DistillationSection, InfoNceSection, TrainingSection

TOLERANCE = 1e-6


def training(**changes: object) -> TrainingSection:
    return TrainingSection.model_validate({"batch_size": 8, "steps": 1, "learning_rate": 1, "chunk_tokens": 60, **changes})


def own_examples() -> list[Example]:
    """Eight queries with up to three negatives each."""
    first, second = examples()
    return [*first, *second]


def scored_examples() -> list[ListExample]:
    """The same queries with lists of one to four candidates; some candidates are in several lists."""
    draw = np.random.default_rng(3)
    found = []
    for example in own_examples():
        candidates: tuple[Item, ...] = (example.positive, *example.negatives)
        found.append(ListExample(example.query, example.instruction, candidates, draw.uniform(-1, 1, len(candidates)).astype(np.float32)))
    return found


def plain(model: Retriever, scored: bool) -> tuple[float, dict[str, torch.Tensor]]:
    """Each list on its own, written out, with one graph over everything."""
    renderer = objective(training(), scored).renderer
    temperature = model.temperature()
    total = torch.zeros((), dtype=torch.float64)
    for example in scored_examples() if scored else own_examples():
        items = example.candidates if isinstance(example, ListExample) else (example.positive, *example.negatives)
        q_1D = model.model(renderer.render([example.query], "query", example.instruction))
        c_KD = model.model(renderer.render(items, "candidate"))
        found_K = ((c_KD @ q_1D[0]) / temperature).softmax(0)
        if isinstance(example, ListExample):
            wanted_K = (torch.tensor(example.teacher_K, dtype=torch.float64) / temperature.detach()).softmax(0)
            total = total + (wanted_K * (wanted_K / found_K).log()).sum()
        else:
            total = total - found_K[0].log()
    loss = total / 8
    loss.backward()
    return loss.item(), gradients(model)


_, ENGINE = retriever()


def objective(settings: TrainingSection, scored: bool, **loss: object) -> OwnLists:
    kind = DistillationSection if scored else InfoNceSection
    section = kind.model_validate({"kind": "distillation" if scored else "infonce", **loss})
    return OwnLists(ENGINE.renderer, section, settings)


@pytest.mark.parametrize("scored", [True, False], ids=["distillation", "own negatives"])
def test_a_step_over_lists_equals_the_plain_gradient(scored: bool):
    model, _ = retriever()
    expected_loss, expected = plain(model, scored)
    for settings in (training(), training(chunk_tokens=1), training(gradient_cache=False), training(chunk_tokens=100_000)):
        step = objective(settings, scored)
        loss = step.backward(model, step.build(scored_examples() if scored else own_examples()), nullcontext)
        assert loss.item() == pytest.approx(expected_loss, rel=TOLERANCE)
        for name, gradient in gradients(model).items():
            scale = expected[name].abs().max().item()
            assert (gradient - expected[name]).abs().max().item() <= TOLERANCE * max(scale, 1e-12), name
    assert expected["temperature.log_value"].abs() > 1e-3


def test_stored_candidates_give_the_query_side_of_the_gradient():
    model, _ = retriever()
    step = objective(training(), scored=True)
    with torch.no_grad():
        vectors = [model.model(step.renderer.render(example.candidates, "candidate")).float().numpy() for example in scored_examples()]
    stored = [ListExample(e.query, e.instruction, (), e.teacher_K, v) for e, v in zip(scored_examples(), vectors, strict=True)]
    batch = step.build(stored)
    assert len(batch.rows) < len(step.build(scored_examples()).rows)
    loss = step.backward(model, batch, nullcontext)
    found = gradients(model)
    total = torch.zeros((), dtype=torch.float64)
    for example, vectors_KD in zip(stored, vectors, strict=True):
        q_1D = model.model(step.renderer.render([example.query], "query", example.instruction))
        wanted_K = (torch.tensor(example.teacher_K, dtype=torch.float64) / model.temperature().detach()).softmax(0)
        found_K = (torch.tensor(vectors_KD, dtype=torch.float64) @ q_1D[0] / model.temperature()).softmax(0)
        total = total + (wanted_K * (wanted_K / found_K).log()).sum() / 8
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=TOLERANCE)
    for name, gradient in gradients(model).items():
        assert (gradient - found[name]).abs().max() <= TOLERANCE * max(gradient.abs().max().item(), 1e-12), name


def test_the_positive_is_not_among_its_own_negatives():
    """By id, as another known positive, or as a copy under another id: at the denominator it would push the positive away."""
    red, blue = (Item.of(text=text, id=did) for text, did in (("a red ring", "0:1"), ("a blue ring", "0:2")))
    other, copy = Item.of(text="two rings", id="0:3"), Item.of(text="a red ring", id="0:4")
    batch = objective(training(), scored=False).build([Example(Item.of(text="red"), None, red, (copy, other, blue), ("0:1", "0:3"))])
    assert batch.list_BK.tolist() == [[1, 2]] and len(batch.rows) == 3


@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("scored", [True, False], ids=["distillation", "own negatives"])
def test_devices_shares_add_up_to_the_gradient_of_the_whole_batch(scored: bool, devices: int):
    model, _ = retriever()
    _, expected = plain(model, scored)
    step, everything = objective(training(), scored), scored_examples() if scored else own_examples()
    for rank in range(devices):
        step.backward(model, step.build(everything[rank::devices]), nullcontext)
    assert largest_difference(gradients(model), expected) <= TOLERANCE
