"""The first scoring: matrix products that find a little more than the k best, in single precision or bfloat16, on the CPU or on a device.

Its last bits depend on the shape of the products, on threads and on the device; `umr.store.rescoring` makes that not matter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from umr.protocols import Vectors
from umr.store.asked import Some
from umr.store.best import Keys, keys_of, merge, nothing, numbers_of, scores_of
from umr.store.halves import WORTH, quicker_here
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
    """Where the products are computed.

    Attributes:
        shapes: of the products, the largest first.
        half: whether they are of vectors rounded to bfloat16.
    """

    shapes: Sequence[Shape]
    half: bool

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
    """Matrix products on the CPU: NumPy's in single precision, or torch's in bfloat16.

    Args:
        half: round to bfloat16, which is quicker on CPUs that have it in hardware (`umr.store.halves.quicker_here`).
    """

    shapes: Sequence[Shape] = tuple(Shape(BLOCK >> n, max(32, QUERIES >> n)) for n in range(7))

    def __init__(self, half: bool = False) -> None:
        self.half = half

    def put(self, block_BD: Vectors) -> Vectors | torch.Tensor:
        """The block as it is, or rounded."""
        return _halved(block_BD) if self.half else block_BD

    def lists(self, queries_QD: Vectors, best: Sequence[Keys], group: int) -> Lists:
        """Lists in the memory of the process."""
        return _CpuLists(queries_QD, best, group, _half_scores if self.half else np.matmul)

    def room(self) -> None:
        """All is in the memory of the process."""


@dataclass(frozen=True)
class _CpuLists:
    queries_QD: Vectors
    best: Sequence[Keys]
    group: int
    product: Callable[[Vectors, Any], Vectors]

    def see(self, block: Any, parts: Sequence[Part]) -> None:
        low, high = span(parts)
        for first in range(0, len(self.queries_QD), self.group):
            scores_GB = self.product(self.queries_QD[first : first + self.group], block[low:high].T)
            for part in parts:
                merge(self.best[part.pool][first : first + self.group], part.of(scores_GB, low), part.places_C)

    def keys(self, pool: int) -> Keys:
        return self.best[pool]


def _halved(vectors_ND: Vectors) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(vectors_ND)).bfloat16()


def _half_scores(queries_GD: Vectors, block_DB: torch.Tensor) -> Vectors:
    return np.asarray((_halved(queries_GD) @ block_DB).float().numpy())


class Device:
    """torch on a device such as `"cuda"`, in full single precision or in bfloat16.

    Args:
        device: its name.
        half: round to bfloat16, which GPUs multiply several times as fast.
    """

    shapes: Sequence[Shape] = tuple(Shape(32768 >> n, max(64, 4096 >> n)) for n in range(8))

    def __init__(self, device: str, half: bool = False) -> None:
        self.device, self.half = device, half

    def put(self, block_BD: Vectors) -> torch.Tensor:
        """Copy the block to the device."""
        return _there(block_BD, self.device, self.half)

    def lists(self, queries_QD: Vectors, best: Sequence[Keys], group: int) -> Lists:
        """Lists on the device."""
        return _DeviceLists(self.device, self.half, queries_QD, best, group)

    def room(self) -> int | None:
        """Most of what is free on a GPU."""
        import torch

        return int(0.8 * torch.cuda.mem_get_info(self.device)[0]) if torch.device(self.device).type == "cuda" else None


def _there(vectors_ND: Vectors, device: str, half: bool) -> torch.Tensor:
    import torch

    there_ND = torch.tensor(vectors_ND, device=device)
    return there_ND.bfloat16() if half else there_ND


class _DeviceLists:
    def __init__(self, device: str, half: bool, queries_QD: Vectors, best: Sequence[Keys], group: int) -> None:
        import torch

        self._queries_QD, self._group = _there(queries_QD, device, half), group
        self._scores = [torch.tensor(scores_of(keys_QM), device=device) for keys_QM in best]
        self._places = [torch.tensor(numbers_of(keys_QM).astype(np.int64), device=device) for keys_QM in best]

    def see(self, block: torch.Tensor, parts: Sequence[Part]) -> None:
        low, high = span(parts)
        with _full_sums():
            for first in range(0, len(self._queries_QD), self._group):
                scores_GB = (self._queries_QD[first : first + self._group] @ block[low:high].T).float()
                for part in parts:
                    self._merge(part.pool, first, part.of(scores_GB, low), part.places_C)

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


@contextmanager
def _full_sums() -> Iterator[None]:
    """Products as the bounds of `umr.store.rescoring` take them: no TF32, and sums in single precision."""
    import torch

    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32, settings.allow_bf16_reduced_precision_reduction
    settings.allow_tf32 = settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_tf32, settings.allow_bf16_reduced_precision_reduction = before


def default_engine(multiplications: int) -> Engine:
    """The quickest engine for a search of so many multiplications; results are the same.

    A GPU where torch has been loaded and sees one, as after embedding there; else the CPU. Both round to bfloat16 where the search is long
    enough for the second look at what rounding leaves open, the CPU only if it has hardware for it.
    """
    torch = sys.modules.get("torch")
    long = multiplications >= WORTH
    if torch is not None and torch.cuda.is_available():
        return Device("cuda", half=long)
    return Cpu(half=long and quicker_here())
