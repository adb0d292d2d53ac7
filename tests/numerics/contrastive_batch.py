"""A batch with every relation that matters to the loss, and its gradient computed the plain way: everything at once, no cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from tiny import checkpoint, film, latent_checkpoint, picture
from umr.items import Item, Video
from umr.losses.infonce import info_nce
from umr.losses.temperature import Temperature
from umr.models.embedder import Embedder, RenderedEngine
from umr.training.batches import RetrievalBatch, build
from umr.training.examples import Example
from umr.training.objectives import Retriever


def examples() -> tuple[list[Example], list[Example]]:
    """The shares of two devices: one without any picture, one with pictures, a video and more candidates.

    `0:5` is a positive on both; `0:1` is the positive of two queries, and a negative and another positive of others; `0:7` is a copy of
    `1:2`, and a candidate is also a query.
    """
    answers = {f"0:{number}": Item.of(text="the answer is here " * number, id=f"0:{number}") for number in range(1, 7)}
    red, wide, blue = (Item.of(image=picture(side, 64, side), id=f"1:{n}") for n, side in ((1, 64), (2, 96), (3, 128)))
    copy = Item.of(image=picture(96, 64, 96), id="0:7")
    clip = Item.of(video=Video(film(4), fps=2.0), text="moving", id="1:4")
    both = Item.of(image=picture(64, 96, 9), text="a red circle", id="1:5")

    def of(query: Item, positive: Item, *negatives: Item, other: tuple[str, ...] = (), instruction: str | None = None) -> Example:
        assert positive.id
        return Example(query, instruction, positive, negatives, (positive.id, *other))

    words = [Item.of(text=text) for text in ("a ring", "two of them moving over the scene", "left")]
    first = [
        of(words[0], answers["0:1"], answers["0:2"], answers["0:3"], instruction="Find the answer."),
        of(words[1], answers["0:1"], other=("0:5",)),
        of(words[2], answers["0:5"], answers["0:1"], answers["0:4"]),
    ]
    second = [
        of(words[0], red, wide, copy, instruction="Find an image that shows the thing."),
        of(red, wide, blue, answers["0:1"], other=("0:5",)),
        of(both, clip, other=("0:1",)),
        of(clip, answers["0:5"], both),
        of(words[2], red),
    ]
    return first, second


def batch_of(share: Sequence[Example], engine: RenderedEngine) -> RetrievalBatch:
    return build(share, engine.renderer)


def retriever(learned: bool = True, latent: bool = False) -> tuple[Retriever, RenderedEngine]:
    """A tiny Qwen3-VL in double precision, with a temperature, and with latent attention if wanted."""
    engine = Embedder.load((latent_checkpoint if latent else checkpoint)("qwen3-vl")).engine
    assert isinstance(engine, RenderedEngine)
    return Retriever(engine.model, Temperature(0.1, learned)).double(), engine


def loss_of(model: Retriever, batch: RetrievalBatch, embeddings_UD: torch.Tensor, both_ways: bool, mask: bool) -> torch.Tensor:
    q, c = embeddings_UD[batch.query_B], embeddings_UD[batch.candidate_C]
    return info_nce(q, c, batch.columns, model.temperature(), both_ways=both_ways, mask=mask)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Of every parameter, zeros where there is none; and forget them."""
    found = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    model.zero_grad(set_to_none=True)
    return found


def plain(
    model: Retriever, batch: RetrievalBatch, both_ways: bool, mask: bool, weights: Mapping[int, float] | None = None
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one forward pass over one padded batch.

    With `weights` of shorter lengths, of one such training for each length: the model itself gives vectors of that length.
    """
    settings, total, found = model.model.settings, 1 + sum((weights or {}).values()), 0.0
    for length, weight in {None: 1.0, **(weights or {})}.items():
        model.model.settings = replace(settings, dimension=length)
        loss = loss_of(model, batch, model.model(batch.rows), both_ways, mask)
        (weight / total * loss).backward()
        found += weight / total * loss.item()
    model.model.settings = settings
    return found, gradients(model)


def largest_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest difference of a parameter's gradient, relative to the largest entry of that gradient."""
    assert found.keys() == expected.keys()
    floor = 1e-6 * max(tensor.abs().max().item() for tensor in expected.values())  # a gradient that is zero but for rounding
    return max(((found[name] - tensor).abs().max() / max(tensor.abs().max().item(), floor)).item() for name, tensor in expected.items())
