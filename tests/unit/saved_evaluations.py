"""Three evaluations of one small tree on disk: an embedder, one that sees less, and the first with a reranker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umr.evaluation import EvaluationResult, evaluate
from umr.evaluation.outputs import write_outputs
from umr.evaluation.rerank import Reranking
from umr.items import Item
from umr.progress import quiet
from unit.bag_reranker import BagReranker
from unit.mbeir_fixture import BagEncoder, write_tree

DEPTH = 20
"""Results reranked."""


class PoorEncoder(BagEncoder):
    """A third of the numbers count for little."""

    def _encode(self, item: Item, instruction: str | None) -> np.ndarray:
        vector = super()._encode(item, instruction).copy()
        vector[::3] *= 0.2
        return vector / np.linalg.norm(vector)


@dataclass(frozen=True)
class Saved:
    """Where they are.

    Attributes:
        tree: the benchmark.
        work: vectors and probabilities of all three.
        first, poor, reranked: folders of the evaluations.
        results: the same in memory.
    """

    tree: Path
    work: Path
    first: Path
    poor: Path
    reranked: Path
    results: dict[str, EvaluationResult]


def save_evaluations(folder: Path) -> Saved:
    """Make them."""
    tree, work = write_tree(folder / "tree"), folder / "work"
    with quiet():
        results = {
            "first": evaluate(BagEncoder(), tree, work_dir=work),
            "poor": evaluate(PoorEncoder("poor"), tree, work_dir=work),
            "reranked": evaluate(BagEncoder(), tree, work_dir=work, rerank=Reranking(BagReranker(), DEPTH, 0.5)),
        }
    for name, result in results.items():
        write_outputs(result, folder / name)
    return Saved(tree, work, folder / "first", folder / "poor", folder / "reranked", results)
