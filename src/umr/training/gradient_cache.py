"""Gradient caching: the gradient of one large batch with the memory of a small one (Gao et al. 2021, arXiv 2101.06983).

Embed all rows in chunks without a graph; compute the loss and its gradient with respect to the embeddings; embed each chunk again,
now with a graph, and feed it its part of that gradient. The result equals one plain batch, because the loss depends on the rows
through their embeddings alone. Chunks are cut by a token budget over rows sorted by length, across queries, positives and
negatives alike, and a row that occurs several times in a batch is embedded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

Row = TypeVar("Row")
Forward = Callable[[Sequence[Row]], torch.Tensor]
Loss = Callable[[torch.Tensor], torch.Tensor]


class _RandomState:
    """Remembers the random generators, so that dropout draws the same in both passes."""

    def __init__(self, device: torch.device) -> None:
        self.devices = [device] if device.type == "cuda" else []
        self.cpu = torch.get_rng_state()
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(devices=self.devices)
        self._fork.__enter__()
        torch.set_rng_state(self.cpu)
        for device, state in zip(self.devices, self.cuda, strict=True):
            torch.cuda.set_rng_state(state, device)

    def __exit__(self, *exc: object) -> None:
        self._fork.__exit__(*exc)  # type: ignore[arg-type]


def backward(
    rows: Sequence[Row],
    chunks: Sequence[Sequence[int]],
    forward: Forward[Row],
    loss: Loss,
    cache: bool = True,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> torch.Tensor:
    """Accumulate the gradient of `loss(embeddings of rows)` into the parameters.

    Args:
        rows: U distinct rows.
        chunks: indices into `rows`, each row in exactly one chunk.
        forward: rows of a chunk -> embeddings (rows, D).
        loss: embeddings_UD, in the order of `rows` -> scalar. Parameters of its own get their gradient too.
        cache: False keeps the graphs of all chunks, which saves the second forward and costs their memory.
        precision: context of each forward (autocast).

    Returns:
        The loss, detached.
    """
    order = torch.tensor([index for chunk in chunks for index in chunk])
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    if not cache or len(chunks) == 1:
        parts = []
        for chunk in chunks:
            with precision():
                parts.append(forward([rows[index] for index in chunk]))
        joined_UD = torch.cat(parts)
        if not joined_UD.requires_grad:  # only the vision tower is trained, and no row has a picture
            joined_UD.requires_grad_()
        value = loss(joined_UD[place.to(joined_UD.device)])
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()
    states, parts = [], []
    for chunk in chunks:
        states.append(_RandomState(_device_of(parts)))
        with torch.no_grad(), precision():
            parts.append(forward([rows[index] for index in chunk]))
    leaf_UD = torch.cat(parts).detach().requires_grad_()
    value = loss(leaf_UD[place.to(leaf_UD.device)])
    value.backward()  # type: ignore[no-untyped-call]
    assert leaf_UD.grad is not None
    start = 0
    for chunk, state in zip(chunks, states, strict=True):
        grad_ND = leaf_UD.grad[start : start + len(chunk)]
        start += len(chunk)
        with state, precision():
            again_ND = forward([rows[index] for index in chunk])
        if again_ND.requires_grad:  # not where only the vision tower is trained, and the chunk has no picture
            again_ND.backward(grad_ND)  # type: ignore[no-untyped-call]
    return value.detach()


def _device_of(parts: list[torch.Tensor]) -> torch.device:
    if parts:
        return parts[0].device
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
