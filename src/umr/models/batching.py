"""From a stream of items to vectors in input order: sort by cost, pack by a token budget, prepare ahead of the forward pass.

A batch is bounded by what it costs (its rows times its longest row), not by a row count: a hundred captions and four pages take
about the same memory and time. Preparing (decoding, resizing, tokenising) runs in a background thread while the model computes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from threading import Event
from typing import TypeVar

import numpy as np
import torch

from umr.errors import ModelError

Row = TypeVar("Row")

GPU_BATCH_TOKENS, CPU_BATCH_TOKENS = 16384, 1024
"""Default token budgets. Measured on a CPU (benchmarks/encode.py): 16384 takes 1.5 to 2 times as long as 1024."""
PREPARE = 32
"""Items prepared in one call of the background thread."""
WINDOW = 4
"""Batches' worth of rows that are sorted together: more sorts better, fewer hold less in memory."""
SMALLEST_WINDOW = 8192
"""Tokens sorted together however small the batches are: under some hundred rows, sorting leaves much padding."""
Cost = tuple[int, int]
"""What a row takes: its length, to which shorter rows are padded, and what comes on top of it whatever the others are."""


def default_budget(device: str) -> int:
    """Tokens a batch on a kind of device, `"cpu"` or another."""
    return CPU_BATCH_TOKENS if device == "cpu" else GPU_BATCH_TOKENS


def check_budget(tokens: int | None) -> None:
    """Raise `ModelError` for a budget that no row fits into; None is the default's."""
    if tokens is not None and tokens < 1:
        raise ModelError(f"batch_tokens={tokens}; a batch needs at least one token")


def pack(lengths: Sequence[int], budget: int, extras: Sequence[int] | None = None) -> list[list[int]]:
    """Group rows into batches whose padded cost stays within a budget.

    Args:
        lengths: tokens of each row.
        budget: largest (rows x longest row + extras) of a batch. A row that exceeds it alone becomes a batch alone.
        extras: what each row costs beyond its padded tokens; 0 when None.

    Returns:
        Batches of indices into `lengths`, longest rows first, ties in input order; deterministic.
    """
    batches: list[list[int]] = []
    longest = extra = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        own = extras[index] if extras is not None else 0
        if not batches or (len(batches[-1]) + 1) * longest + extra + own > budget:
            batches.append([])
            longest, extra = max(lengths[index], 1), 0
        batches[-1].append(index)
        extra += own
    return batches


def encode_stream(
    count: int,
    prepare: Callable[[int, int], list[Row]],
    cost: Callable[[Row], Cost],
    forward: Callable[[list[Row]], np.ndarray],
    budget: int,
    spare_core: bool = True,
) -> np.ndarray:
    """Run `prepare` and `forward` over `count` rows, overlapped, and return the vectors in input order.

    Args:
        count: number of rows.
        prepare: `(start, stop) -> rows`, called in order in a background thread.
        cost: a row's cost in tokens, see `Cost`.
        forward: rows -> float32 (rows, D), called in this thread.
        budget: tokens a batch.
        spare_core: whether preparing takes so long that torch leaves a core to it. It is not asked anew while rows are prepared:
            results may depend on the number of threads, and must not depend on the time.

    Returns:
        (count, D) float32. The grouping depends on the rows alone, so the same input gives the same bytes.
    """
    out: np.ndarray | None = None
    with _a_core_for_preparing() if spare_core else nullcontext():
        for start, rows in _windows(count, prepare, cost, max(budget * WINDOW, SMALLEST_WINDOW)):
            lengths, extras = zip(*map(cost, rows), strict=True)
            for batch in pack(lengths, budget, extras):
                vectors = forward([rows[index] for index in batch])
                if out is None:
                    out = np.empty((count, vectors.shape[1]), np.float32)
                out[start + np.array(batch)] = vectors
    assert out is not None, "encode_stream needs at least one row"
    return out


@contextmanager
def _a_core_for_preparing() -> Iterator[None]:
    """Leave one core out of torch's own threads: with one thread too many they wait for each other (docs/decisions.md)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, min(threads, (os.cpu_count() or 1) - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _windows(
    count: int, prepare: Callable[[int, int], list[Row]], cost: Callable[[Row], Cost], size: int
) -> Iterator[tuple[int, list[Row]]]:
    """Windows of rows, the next one made in a background thread while the caller works on one. No further: images are large."""
    stop = Event()

    def fill(start: int) -> list[Row]:
        window: list[Row] = []
        total = 0
        while total < size and start + len(window) < count and not stop.is_set():
            first = start + len(window)
            rows = prepare(first, min(first + PREPARE, count))
            window.extend(rows)
            total += sum(sum(cost(row)) for row in rows)
        return window

    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            first, future = 0, pool.submit(fill, 0)
            while first < count:
                window, start = future.result(), first
                first += len(window)
                if first < count:
                    future = pool.submit(fill, first)
                yield start, window
        finally:
            stop.set()  # an interrupted caller need not wait for a whole window
