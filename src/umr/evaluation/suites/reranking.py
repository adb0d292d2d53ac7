"""Reranking what a suite's search found: by cosine + weight * P(Yes), as U-MARVEL+ (arXiv 2507.14902) does."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from umr import files
from umr.errors import RecipeError
from umr.evaluation.suites.protocols import DEPTH, Ranked
from umr.evaluation.suites.task import Task
from umr.mining.fill import PairScorer
from umr.progress import Bar
from umr.rendering.pairs import Pair

QUERIES = 64
"""Queries whose probabilities are written to disk at a time: what an interrupted run loses at most."""


@dataclass(frozen=True)
class SuiteReranking:
    """How rankings are ordered anew. Results that are equal afterwards stay in the order of the search.

    Attributes:
        reranker: gives P(Yes).
        depth: results of each query that are reranked; U-MARVEL takes 10, and 50 of CIRCO.
        weight: of P(Yes) beside the cosine; U-MARVEL takes 0.1 for most suites, which it chose by their scores.

    Raises:
        RecipeError: a depth or weight without meaning.
    """

    reranker: PairScorer
    depth: int = 10
    weight: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= DEPTH:
            raise RecipeError(f"rerank depth must be 1 to {DEPTH}, not {self.depth}")
        if not (np.isfinite(self.weight) and self.weight >= 0):
            raise RecipeError(f"rerank weight must be 0 or more, not {self.weight}: less would put what the reranker prefers last")

    def rerank(self, task: Task, ranked: Ranked, instruction: str | None, folder: Path, label: str, bar: Bar) -> Ranked:
        """Order the first results of every query anew.

        Args:
            task: gives the items.
            ranked: by cosine.
            instruction: of the queries.
            folder: where probabilities are kept, so that another weight, or a run after an interruption, asks for none again.
            label: of the vectors searched.
            bar: advanced by the number of queries.
        """
        places = {did: place for place, did in enumerate(task.candidates.ids)}
        found = Ranked({}, {})
        for start in range(0, len(task.queries), QUERIES):
            qids = task.queries.ids[start : start + QUERIES]
            heads = {qid: ranked.dids[qid][: self.depth] for qid in qids}
            path = folder / f"{_hash(self.reranker.fingerprint, label, repr(instruction), repr(heads))}.npy"
            pairs = [(start + number, places[did]) for number, qid in enumerate(qids) for did in heads[qid]]
            yes_P = _kept(path, len(pairs))
            if yes_P is None:
                yes_P = self.reranker.score_pairs(
                    [Pair(task.queries.make(query), instruction, task.candidates.make(candidate)) for query, candidate in pairs]
                )
                _keep(path, yes_P)
            ends = np.cumsum([len(heads[qid]) for qid in qids])
            for qid, yes_K in zip(qids, np.split(yes_P, ends[:-1]), strict=True):
                found.dids[qid], found.scores[qid] = self._fused(ranked.dids[qid], ranked.scores[qid], yes_K)
            bar.advance(len(qids))
        return found

    def _fused(self, dids: list[str], scores: list[float], yes_K: npt.NDArray[np.float32]) -> tuple[list[str], list[float]]:
        count = len(yes_K)
        fused_K = np.array(scores[:count]) + self.weight * yes_K.astype(np.float64)
        order = np.argsort(-fused_K, kind="stable")
        return [*(dids[one] for one in order), *dids[count:]], [*fused_K[order].tolist(), *scores[count:]]


def _kept(path: Path, count: int) -> npt.NDArray[np.float32] | None:
    """Probabilities on disk; `None` where there are none or the file is damaged, which costs no more than asking again."""
    try:
        yes_P = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = yes_P.dtype == np.float32 and yes_P.shape == (count,) and bool(np.isfinite(yes_P).all())
    return yes_P if whole else None


def _keep(path: Path, yes_P: npt.NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(yes_P, np.float32), allow_pickle=False)
    files.write_bytes(path, buffer.getvalue())


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
