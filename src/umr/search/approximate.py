"""Search of a large partition through cells: k-means over its vectors, and a sign bit a coordinate about each cell's centre.

The codes are RaBitQ (Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound", 2024), by faiss. A query
looks into the cells whose centres are nearest, and the best candidates are scored again with the fp16 vectors. How many cells it takes
depends on where the query comes from, see `umr.search.plans`.

There is one such index for each modality. One over all of them looks into the cells of the query's own modality first, because
modalities lie apart; under a filter for another one it finds nothing.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from umr.progress import progress
from umr.protocols import Vectors
from umr.search.flat import in_this_thread, sample_rows
from umr.search.scoring import Half, Rows, widen
from umr.search.together import FEW

TRAINING = 40
"""Vectors a cell that k-means sees."""
_ROUNDS = 10
_ADDED = 1 << 15  # rows added at a time


class Cells:
    """An index over N rows.

    Args:
        index: of faiss, an `IndexIVFRaBitQ` whose ids are row numbers.
        faiss: the module.
    """

    def __init__(self, index: Any, faiss: ModuleType) -> None:
        self._index = index
        self._faiss = faiss

    @classmethod
    def build(cls, vectors_ND: Half, faiss: ModuleType, label: str = "index") -> Cells:
        """Make the index; about a minute for a million rows of 768 numbers on two cores.

        Args:
            vectors_ND: unit vectors, at least a few hundred.
            faiss: the module.
            label: what progress says is being indexed.
        """
        total, dimension = vectors_ND.shape
        lists = max(1, min(2 * math.isqrt(total), total // TRAINING))
        index = faiss.IndexIVFRaBitQ(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = _ROUNDS
        index.cp.max_points_per_centroid = index.cp.min_points_per_centroid = TRAINING
        sample_SD = widen(vectors_ND[sample_rows(total, TRAINING * lists)])
        with progress(f"indexing {label}", total, "vectors") as bar:
            index.train(sample_SD)
            del sample_SD
            for start in range(0, total, _ADDED):
                block_BD = widen(vectors_ND[start : start + _ADDED])
                index.add(block_BD)
                bar.advance(len(block_BD))
        return cls(index, faiss)

    @classmethod
    def load(cls, path: Path, faiss: ModuleType) -> Cells:
        """Read what `save` wrote.

        Raises:
            OSError: missing or damaged.
        """
        try:
            return cls(faiss.read_index(str(path)), faiss)
        except RuntimeError as error:
            raise OSError(f"{path}: damaged index ({str(error).splitlines()[0]})") from error

    def save(self, path: Path) -> None:
        """Write the index; the caller makes sure that it reaches the disk."""
        self._faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def count(self) -> int:
        """Number of cells."""
        return int(self._index.nlist)

    @property
    def bytes(self) -> int:
        """Memory that codes, row numbers and centres take."""
        return len(self) * (int(self._index.code_size) + 8) + self.count * self._index.d * 4

    def nearest(self, queries_QD: Vectors, depth: int, probes: int, passing: npt.NDArray[np.bool_] | None = None) -> list[Rows]:
        """Candidates for each query, best first; fewer than `depth` where the cells hold no more.

        Args:
            queries_QD: unit vectors.
            depth: candidates wanted.
            probes: cells to look into.
            passing: shape (N,), rows to choose from; by default all.
        """
        faiss = self._faiss
        settings = {"nprobe": min(probes, self.count)}
        if passing is not None:
            bits = np.packbits(passing, bitorder="little")  # kept until the search is over: faiss only points to it
            settings["sel"] = faiss.IDSelectorBitmap(bits)
        with in_this_thread(faiss, len(queries_QD) < FEW):
            _, places_QM = self._index.search(
                np.ascontiguousarray(queries_QD), min(depth, len(self)), params=faiss.SearchParametersIVF(**settings)
            )
        return [places_M[places_M >= 0] for places_M in places_QM]
