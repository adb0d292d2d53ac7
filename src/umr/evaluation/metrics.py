"""How good rankings are, one number a query: hit rate, recall, nDCG, reciprocal rank, average precision.

`judge` turns ids into relevances once; every metric is then a few array operations. The values are those of trec_eval
(through ir-measures: Success@k, R@k, nDCG@k, RR, AP) for rankings cut at the depth given. A candidate counts as relevant from
relevance 1 on. Queries without results, or without anything relevant, score 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Qrels = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Judged:
    """Rankings of Q queries with ids replaced by relevances.

    Attributes:
        gain_QK: relevance of each result, best result first; 0 where it is irrelevant, unjudged, or where there is no result.
        ideal_QK: relevances of everything relevant, largest first, cut or padded with 0 to K columns.
        relevant_Q: how many candidates are relevant.
    """

    gain_QK: npt.NDArray[np.int64]
    ideal_QK: npt.NDArray[np.int64]
    relevant_Q: npt.NDArray[np.int64]


def judge(qids: Sequence[str], rankings: Mapping[str, Sequence[str]], qrels: Qrels, depth: int) -> Judged:
    """Look up the relevance of the first `depth` results of every query.

    Args:
        qids: the queries to score, in the order of the rows of everything that follows.
        rankings: `did`s by `qid`, best first, each at most once; a missing `qid` has no results.
        qrels: relevance by `qid` and `did`.
        depth: K, the number of results looked at; no metric may look further.
    """
    gain_QK = np.zeros((len(qids), depth), np.int64)
    ideal_QK = np.zeros((len(qids), depth), np.int64)
    relevant_Q = np.zeros(len(qids), np.int64)
    for row, qid in enumerate(qids):
        relevance = {did: value for did, value in qrels.get(qid, {}).items() if value > 0}
        found = [relevance.get(did, 0) for did in rankings.get(qid, ())[:depth]]
        ideal = sorted(relevance.values(), reverse=True)[:depth]
        gain_QK[row, : len(found)] = found
        ideal_QK[row, : len(ideal)] = ideal
        relevant_Q[row] = len(relevance)
    return Judged(gain_QK, ideal_QK, relevant_Q)


def hit_at(judged: Judged, k: int) -> Scores:
    """1 where anything relevant is among the first `k` results, else 0: what M-BEIR calls recall. Shape (Q,)."""
    return np.asarray((_cut(judged.gain_QK, k) > 0).any(axis=1), np.float64)


def recall_at(judged: Judged, k: int) -> Scores:
    """Share of the relevant candidates that are among the first `k` results. Shape (Q,)."""
    return np.asarray((_cut(judged.gain_QK, k) > 0).sum(axis=1) / np.maximum(judged.relevant_Q, 1))


def ndcg_at(judged: Judged, k: int) -> Scores:
    """Discounted gain of the first `k` results over the best possible one, gain = relevance, discount = log2(rank + 1).

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002, as trec_eval computes it. Shape (Q,).
    """
    discount_K = 1 / np.log2(np.arange(2, k + 2))
    gained_Q = (_cut(judged.gain_QK, k) * discount_K).sum(axis=1)
    ideal_Q = (_cut(judged.ideal_QK, k) * discount_K).sum(axis=1)
    return np.asarray(gained_Q / np.where(ideal_Q > 0, ideal_Q, 1))


def reciprocal_rank(judged: Judged) -> Scores:
    """1 / rank of the first relevant result; its mean over queries is MRR. Shape (Q,)."""
    return reciprocal_rank_at(judged, judged.gain_QK.shape[1])


def reciprocal_rank_at(judged: Judged, k: int) -> Scores:
    """1 / rank of the first relevant result among the first `k`, else 0; its mean over queries is MRR@k. Shape (Q,)."""
    relevant_QK = _cut(judged.gain_QK, k) > 0
    return np.where(relevant_QK.any(axis=1), 1 / (relevant_QK.argmax(axis=1) + 1), 0.0)


def average_precision(judged: Judged) -> Scores:
    """Precision at the rank of each relevant result, summed and divided by the number of relevant candidates.

    Its mean over queries is mAP. Shape (Q,).
    """
    relevant_QK = judged.gain_QK > 0
    precision_QK = relevant_QK.cumsum(axis=1) / np.arange(1, relevant_QK.shape[1] + 1)
    return np.asarray((precision_QK * relevant_QK).sum(axis=1) / np.maximum(judged.relevant_Q, 1))


def expected_hit_at(relevant_Q: npt.NDArray[np.int64], pool_size: int, k: int) -> Scores:
    """Chance level of `hit_at`: the probability that `k` candidates drawn without replacement include a relevant one.

    With a single relevant candidate this is k / pool_size. Shape (Q,).

    Args:
        relevant_Q: number of relevant candidates *in the pool* for each query.
        pool_size: number of candidates.
        k: number drawn.
    """
    drawn_k = np.arange(min(k, pool_size))
    miss_Qk = np.clip((pool_size - relevant_Q[:, None] - drawn_k) / (pool_size - drawn_k), 0, 1)
    return np.asarray(1 - miss_Qk.prod(axis=1))


def expected_ndcg_at(judged: Judged, gains_Q: Scores, pool_size: int, k: int) -> Scores:
    """Chance level of `ndcg_at`: its mean over all orders of the pool. Shape (Q,).

    Args:
        judged: gives the best possible gain.
        gains_Q: sum of the relevances *in the pool* for each query.
        pool_size: number of candidates.
        k: results looked at.
    """
    discount_K = 1 / np.log2(np.arange(2, k + 2))
    ideal_Q = (_cut(judged.ideal_QK, k) * discount_K).sum(axis=1)
    gained_Q = gains_Q / pool_size * discount_K[: min(k, pool_size)].sum()
    return np.asarray(np.where(ideal_Q > 0, gained_Q / np.where(ideal_Q > 0, ideal_Q, 1), 0.0))


def _cut(values_QK: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
    if k > values_QK.shape[1]:
        raise ValueError(f"a metric at {k} needs rankings judged to depth {k}, not {values_QK.shape[1]}")
    return values_QK[:, :k]
