"""What is measured where: the metrics, and the one that M-BEIR reports for each of its searches."""

from __future__ import annotations

from collections.abc import Callable

from umr.evaluation import metrics
from umr.evaluation.metrics import Judged, Scores

METRICS: dict[str, Callable[[Judged], Scores]] = {
    "hit@1": lambda judged: metrics.hit_at(judged, 1),
    "hit@5": lambda judged: metrics.hit_at(judged, 5),
    "hit@10": lambda judged: metrics.hit_at(judged, 10),
    "recall@5": lambda judged: metrics.recall_at(judged, 5),
    "recall@10": lambda judged: metrics.recall_at(judged, 10),
    "ndcg@10": lambda judged: metrics.ndcg_at(judged, 10),
    "mrr": metrics.reciprocal_rank,
}
"""Metric name -> one value a query. Their means over queries are reported."""

MIN_DEPTH = 10
"""Results a query that the metrics above need."""

_MAIN_AT_10 = ("fashion200k", "fashioniq")


def main_metric(setting: str) -> str:
    """The metric that enters M-BEIR's average: hit rate at 10 for Fashion200K and FashionIQ, at 5 elsewhere.

    The rule of UniIR (Wei et al., ECCV 2024), which calls it recall.

    Args:
        setting: `"<dataset>_task<k>"`.
    """
    return "hit@10" if setting.rsplit("_task", 1)[0] in _MAIN_AT_10 else "hit@5"
