"""Recall, then rerank: the first results of a search ordered anew by cosine + weight * P(Yes). U-MARVEL+ is this.

Only the first `depth` results change places; what lies beneath keeps its order. Probabilities are kept in `work_dir`, so
that another weight costs no call of the reranker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from umr.data.benchmark import Benchmark
from umr.errors import RecipeError, StoreError
from umr.evaluation.declarations import METRICS, main_metric
from umr.evaluation.metrics import Qrels, judge
from umr.evaluation.questions import candidates, questions
from umr.evaluation.result import Run
from umr.evaluation.weights import Weights
from umr.evaluation.wording import Wording
from umr.mining.fill import PairScorer, Place, fill
from umr.mining.scores_files import AGAIN
from umr.mining.scores_writer import Origin, ScoreWriter
from umr.progress import Bar
from umr.protocols import query_text_of

Scores = npt.NDArray[np.float32]


def fuse(cosine: Scores, yes: Scores, weight: float) -> Scores:
    """Cosine + weight * P(Yes), any shape: how U-MARVEL+ (arXiv 2507.14902) ranks what was recalled."""
    return np.asarray(cosine + np.float32(weight) * yes, np.float32)


@dataclass(frozen=True)
class Reranking:
    """How `evaluate` is to rerank.

    Attributes:
        reranker: gives P(Yes).
        depth: results of each query that are reranked.
        weights: of P(Yes) beside the cosine: one number for all settings, or `Weights`.
        weights_of_another_model: take `Weights` although they were chosen for another retriever or reranker, as when a student
            is measured with those of its teacher.
    """

    reranker: PairScorer
    depth: int = 50
    weights: float | Weights = 1.0
    weights_of_another_model: bool = False

    def __post_init__(self) -> None:
        if self.weights_of_another_model and not (isinstance(self.weights, Weights) and (self.weights.retriever or self.weights.reranker)):
            raise RecipeError("weights_of_another_model has no effect on weights that were chosen for no model; leave it out")
        if self.depth < 1:
            raise RecipeError(f"rerank depth must be at least 1, not {self.depth}")
        if not isinstance(self.weights, Weights) and not (np.isfinite(self.weights) and self.weights >= 0):
            raise RecipeError(f"rerank weight must be 0 or more, not {self.weights}: less would put what the reranker prefers last")

    def check(self, retriever: str) -> None:
        """Raise `RecipeError` if the weights were chosen for another retriever or reranker, unless that is what was asked for."""
        if isinstance(self.weights, Weights) and not self.weights_of_another_model:
            self.weights.check(retriever, self.reranker.fingerprint)

    def weight(self, setting: str) -> float:
        """The weight of a setting."""
        return self.weights.of(setting) if isinstance(self.weights, Weights) else float(self.weights)


@dataclass(frozen=True)
class Reranked:
    """What the reranker said about one search.

    Attributes:
        recall: the ranking before, by cosine.
        yes_QK: P(Yes) of its first results, shape (Q, depth) or fewer columns for a small pool.
    """

    recall: Run
    yes_QK: Scores

    def order(self, weight: float) -> npt.NDArray[np.int64]:
        """Places of the first results in the order of cosine + weight * P(Yes), shape of `yes_QK`; equal scores stay as they were."""
        return np.argsort(-self._fused(weight), axis=1, kind="stable")

    def fused(self, weight: float) -> Run:
        """The ranking by cosine + weight * P(Yes)."""
        return self._ordered(self._fused(weight))

    def alone(self) -> Run:
        """The ranking by P(Yes) alone, within the results that were reranked; its scores are not comparable to those beneath."""
        return self._ordered(self.yes_QK)

    def _fused(self, weight: float) -> Scores:
        return fuse(self.recall.scores_QK[:, : self.yes_QK.shape[1]], self.yes_QK, weight)

    def _ordered(self, scores_QK: Scores) -> Run:
        depth = scores_QK.shape[1]
        order_QK = np.argsort(-scores_QK, axis=1, kind="stable")
        rows_QK, all_QK = self.recall.rows_QK.copy(), self.recall.scores_QK.copy()
        rows_QK[:, :depth] = np.take_along_axis(rows_QK[:, :depth], order_QK, axis=1)
        all_QK[:, :depth] = np.take_along_axis(scores_QK, order_QK, axis=1)
        return Run(self.recall.qids, rows_QK, all_QK, self.recall.dids)


@dataclass(frozen=True)
class RerankReport:
    """What an evaluation with a reranker says beside its scores.

    Attributes:
        fingerprint: of the reranker.
        depth: results of each query that were reranked.
        weights: by setting.
        chosen: what the weights were chosen on (`split`, `data`, and fingerprints); empty for a number given.
        recall: main metric before reranking, in percent, by setting and pool.
        alone: main metric of the order by P(Yes) alone: how well the reranker agrees with the judgements.
        searches: by setting and pool; not part of the JSON.
    """

    fingerprint: str
    depth: int
    weights: dict[str, float]
    chosen: dict[str, str]
    recall: dict[str, dict[str, float]]
    alone: dict[str, dict[str, float]]
    searches: Mapping[tuple[str, str], Reranked] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """What the JSON of an evaluation says of it."""
        return {name: getattr(self, name) for name in ("fingerprint", "depth", "weights", "chosen", "recall", "alone")}


@dataclass(frozen=True)
class Search:
    """One search to rerank.

    Attributes:
        setting: such as `"mscoco_task0"`.
        pool: `"local"` or `"global"`.
        run: its ranking by cosine.
        wording: of the instructions, the same that the retriever saw.
        source: label of its queries and candidates; probabilities of other data are not used.
    """

    setting: str
    pool: str
    run: Run
    wording: Wording
    source: str


def ask(
    plan: Reranking, benchmark: Benchmark, split: str, encoder: str, searches: Sequence[Search], folder: Path, bar: Bar
) -> dict[tuple[str, str], Reranked]:
    """Have the reranker judge the first results of every search, or read what it has said before.

    Args:
        plan: reranker and depth.
        benchmark: where items come from.
        split: of the queries.
        encoder: fingerprint of the retriever.
        searches: what was found.
        folder: `work_dir` of the evaluation.
        bar: advanced by pairs.

    Returns:
        By setting and pool.
    """
    origin = Origin(encoder, plan.reranker.fingerprint, plan.reranker.fingerprint)
    benchmark = benchmark.with_query_text(query_text_of(plan.reranker))
    found: dict[tuple[str, str], Reranked] = {}
    tables: dict[str, list[ScoreWriter]] = {}
    for one in searches:
        name = f"{one.setting}-{one.pool}-{split}-{one.wording}-{plan.depth}-{one.source[:8]}"
        path = folder / "scores" / origin.revision / name
        table = ScoreWriter(path, data=one.source, split=split, instruction=one.wording, depth=plan.depth)
        query, candidate = questions(benchmark, one.setting, split, one.wording), candidates(benchmark, one.setting, split, one.pool)
        others = tables.setdefault(one.setting, [])
        fill(table, plan.reranker, one.run, Place(one.setting, one.pool, query, candidate), origin, bar, also=others)
        others.append(table)
        found[one.setting, one.pool] = Reranked(one.run, _aligned(table, one, origin))
    return found


def _aligned(table: ScoreWriter, search: Search, origin: Origin) -> Scores:
    """P(Yes) in the order of the run's rows."""
    rows = []
    for qid, dids in search.run.rankings().items():
        found = table.find(qid, search.setting, search.pool, origin)
        if found is None or found.dids != tuple(dids[: table.depth]):
            raise StoreError(f"{table.path}: holds another list for query {qid}; {AGAIN}")
        rows.append(found.yes_K)
    return np.stack(rows)


def report(plan: Reranking, found: Mapping[tuple[str, str], Reranked], qrels: Mapping[str, Qrels], depth: int) -> RerankReport:
    """Compare the order before, and the order by P(Yes) alone, with the judgements.

    Args:
        plan: how it was reranked.
        found: by setting and pool.
        qrels: by setting.
        depth: results looked at.
    """
    recall: dict[str, dict[str, float]] = {}
    alone: dict[str, dict[str, float]] = {}
    for (setting, pool), one in found.items():
        recall.setdefault(setting, {})[pool] = scores_of(one.recall, setting, qrels[setting], depth)[0]
        alone.setdefault(setting, {})[pool] = scores_of(one.alone(), setting, qrels[setting], depth)[0]
    weights = {setting: plan.weight(setting) for setting in recall}
    chosen = plan.weights.origin if isinstance(plan.weights, Weights) else {}
    return RerankReport(plan.reranker.fingerprint, plan.depth, weights, chosen, recall, alone, found)


def scores_of(run: Run, setting: str, qrels: Qrels, depth: int) -> tuple[float, float]:
    """Main metric of the setting and MRR of a ranking, in percent."""
    judged = judge(run.qids, run.rankings(), qrels, depth)
    return 100 * float(METRICS[main_metric(setting)](judged).mean()), 100 * float(METRICS["mrr"](judged).mean())
