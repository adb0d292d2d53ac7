"""What this machine can do at most: bytes read and copied a second, and operations a second in single precision and in bfloat16."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from encode import matrix_rate

BYTES = 1 << 30


def limits(repeats: int = 7) -> dict[str, Any]:
    """The best of several tries with all threads of torch, on arrays far larger than any cache; bytes and operations a second.

    `read` is a sum over `BYTES`; `copy` counts bytes read and bytes written; `matrix` is a large fp32 product, `matrix_half` one
    in bfloat16, two operations a multiply-add.
    """
    source = torch.ones(BYTES // 4)
    target = torch.empty_like(source)
    target.copy_(source)  # its pages have to exist before they are timed
    read = best(repeats, lambda: source.sum())
    copy = best(repeats, lambda: target.copy_(source))
    rates = {"matrix": 2 * matrix_rate(), "matrix_half": 2 * matrix_rate(torch.bfloat16)}
    return {"threads": torch.get_num_threads(), "read": BYTES / read, "copy": 2 * BYTES / copy, **rates}


def best(repeats: int, work: Callable[[], object]) -> float:
    """Seconds of the quickest call."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)
