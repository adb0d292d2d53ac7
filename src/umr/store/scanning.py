"""The first scoring: single-precision matrix products that find a little more than the k best, on the CPU or on a device of torch.

Its last bits depend on the shape of the products, on threads and on the device; `umr.store.rescoring` makes that not matter.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from umr.protocols import Vectors
from umr.store.asked import Some
from umr.store.best import Keys, keys_of, merge, nothing, numbers_of, scores_of
from umr.store.passes import Shape

if TYPE_CHECKING:
    import torch

BLOCK = 8192  # candidates a matrix product
QUERIES = 512  # queries a matrix product: 16 MiB of scores, which stay near the cache


@dataclass(frozen=True)
class Part:
    """The candidates of a block that belong to one pool.

    Attributes:
        pool: which of those that the queries rank.
        columns_C: where they are in the block, ascending.
        places_C: where they are in the stream.
    """

    pool: int
    columns_C: Some
    places_C: Some

    def of(self, scores_QB: Any, low: int) -> Any:
        """Their columns of scores that begin with column `low` of the block."""
        first, last = int(self.columns_C[0]), int(self.columns_C[-1]) + 1
        if last - first == len(self.columns_C):
            return scores_QB[:, first - low : last - low]
        return scores_QB[:, self.columns_C.astype(np.int64) - low]


def span(parts: Sequence[Part]) -> tuple[int, int]:
    """The columns of a block that any part needs."""
    return min(int(part.columns_C[0]) for part in parts), max(int(part.columns_C[-1]) + 1 for part in parts)


class Lists(Protocol):
    """Lists of the best so far of some queries, one for each of the pools that they rank."""

    def see(self, block: Any, parts: Sequence[Part]) -> None:
        """Score a block, which an `Engine` has put in place, and keep what belongs to the best."""
        ...

    def keys(self, pool: int) -> Keys:
        """Entries in any order, shape (Q, M)."""
        ...


class Engine(Protocol):
    """Where the products are computed."""

    shapes: Sequence[Shape]

    def put(self, block_BD: Vectors) -> Any:
        """Make a block of candidates ready for `Lists.see`."""
        ...

    def lists(self, queries_QD: Vectors, best: Sequence[Keys], group: int) -> Lists:
        """Lists that go on from `best`, which may change with them."""
        ...

    def room(self) -> int | None:
        """Bytes free for vectors, lists and scores where they are not in the memory of the process; `None` where they are."""
        ...


class Cpu:
    """NumPy's matrix products."""

    shapes: Sequence[Shape] = tuple(Shape(BLOCK >> n, max(32, QUERIES >> n)) for n in range(7))

    def put(self, block_BD: Vectors) -> Vectors:
        """Nothing to do."""
        return block_BD

    def lists(self, queries_QD: Vectors, best: Sequence[Keys], group: int) -> Lists:
        """Lists in the memory of the process."""
        return _CpuLists(queries_QD, best, group)

    def room(self) -> None:
        """All is in the memory of the process."""


@dataclass(frozen=True)
class _CpuLists:
    queries_QD: Vectors
    best: Sequence[Keys]
    group: int

    def see(self, block: Vectors, parts: Sequence[Part]) -> None:
        low, high = span(parts)
        for first in range(0, len(self.queries_QD), self.group):
            scores_GB = self.queries_QD[first : first + self.group] @ block[low:high].T
            for part in parts:
                merge(self.best[part.pool][first : first + self.group], part.of(scores_GB, low), part.places_C)

    def keys(self, pool: int) -> Keys:
        return self.best[pool]


class Device:
    """torch on a device such as `"cuda"`, in full single precision."""

    shapes: Sequence[Shape] = tuple(Shape(32768 >> n, max(64, 4096 >> n)) for n in range(8))

    def __init__(self, device: str) -> None:
        self.device = device

    def put(self, block_BD: Vectors) -> torch.Tensor:
        """Copy the block to the device."""
        import torch

        return torch.tensor(block_BD, device=self.device)

    def lists(self, queries_QD: Vectors, best: Sequence[Keys], group: int) -> Lists:
        """Lists on the device."""
        return _DeviceLists(self.device, queries_QD, best, group)

    def room(self) -> int | None:
        """Most of what is free on a GPU."""
        import torch

        return int(0.8 * torch.cuda.mem_get_info(self.device)[0]) if torch.device(self.device).type == "cuda" else None


class _DeviceLists:
    def __init__(self, device: str, queries_QD: Vectors, best: Sequence[Keys], group: int) -> None:
        import torch

        self._queries_QD, self._group = torch.tensor(queries_QD, device=device), group
        self._scores = [torch.tensor(scores_of(keys_QM), device=device) for keys_QM in best]
        self._places = [torch.tensor(numbers_of(keys_QM).astype(np.int64), device=device) for keys_QM in best]

    def see(self, block: torch.Tensor, parts: Sequence[Part]) -> None:
        import torch

        low, high = span(parts)
        before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
        try:
            for first in range(0, len(self._queries_QD), self._group):
                scores_GB = self._queries_QD[first : first + self._group] @ block[low:high].T
                for part in parts:
                    self._merge(part.pool, first, part.of(scores_GB, low), part.places_C)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    def _merge(self, pool: int, first: int, scores_GC: torch.Tensor, places_C: Some) -> None:
        import torch

        rows = slice(first, first + self._group)
        best_GM, depth = self._scores[pool][rows], self._scores[pool].shape[1]
        top_GM, at_GM = scores_GC.topk(min(depth, scores_GC.shape[1]), dim=1)
        places = torch.tensor(places_C.astype(np.int64), device=scores_GC.device)[at_GM]
        kept, at = torch.cat([best_GM, top_GM], 1).topk(depth, dim=1)
        self._places[pool][rows] = torch.cat([self._places[pool][rows], places], 1).gather(1, at)
        self._scores[pool][rows] = kept

    def keys(self, pool: int) -> Keys:
        scores, places = self._scores[pool].cpu().numpy(), self._places[pool].cpu().numpy()
        keys = nothing(*scores.shape)
        found = np.isfinite(scores)
        keys[found] = keys_of(scores[found], places[found])
        return keys


def default_engine() -> Engine:
    """A GPU where torch has been loaded and sees one, as after embedding there; else NumPy. Results are the same."""
    torch = sys.modules.get("torch")
    return Device("cuda") if torch is not None and torch.cuda.is_available() else Cpu()
