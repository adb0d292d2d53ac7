"""What is measured where: the metrics, and the one that M-BEIR and BEIR report for each of their searches."""

from __future__ import annotations

from collections.abc import Callable

from umr.data.mbeir_records import is_text_retrieval
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

_DEEPER_HITS: dict[str, Callable[[Judged], Scores]] = {
    "hit@20": lambda judged: metrics.hit_at(judged, 20),
    "hit@50": lambda judged: metrics.hit_at(judged, 50),
}

TEXT_METRICS: dict[str, Callable[[Judged], Scores]] = {
    **METRICS,
    "recall@20": lambda judged: metrics.recall_at(judged, 20),
    "recall@50": lambda judged: metrics.recall_at(judged, 50),
    "recall@100": lambda judged: metrics.recall_at(judged, 100),
    "mrr@10": lambda judged: metrics.reciprocal_rank_at(judged, 10),
}
"""The same for text retrieval. Those that look further than an evaluation does are left out."""

MIN_DEPTH = 10
"""Results a query that the metrics above need."""

DEEPEST = 100
"""Results a query beyond which no metric looks but MRR."""

_MAIN_AT_10 = ("fashion200k", "fashioniq")


def metrics_of(setting: str, depth: int) -> dict[str, Callable[[Judged], Scores]]:
    """What is measured for a setting when so many results a query are known; for Fashion200K and FashionIQ also hits at 20 and 50."""
    known = TEXT_METRICS if is_text_retrieval(setting) else {**METRICS, **(_DEEPER_HITS if main_metric(setting) == "hit@10" else {})}
    return {name: metric for name, metric in known.items() if int(name.partition("@")[2] or 0) <= depth}


def main_metric(setting: str) -> str:
    """The metric that enters the average: nDCG@10 for text retrieval; of M-BEIR hit rate at 10 for Fashion200K and FashionIQ, else at 5.

    The rules of BEIR (Thakur et al., NeurIPS 2021) and of UniIR (Wei et al., ECCV 2024), which calls the hit rate recall.

    Args:
        setting: `"<dataset>_task<k>"`.
    """
    if is_text_retrieval(setting):
        return "ndcg@10"
    return "hit@10" if setting.rsplit("_task", 1)[0] in _MAIN_AT_10 else "hit@5"
