"""From one ranking to its scores: means in percent, chance levels, what cannot be found, and every query's own values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.data.benchmark import Pool
from umr.data.mbeir_records import is_text_retrieval
from umr.evaluation.declarations import main_metric, metrics_of
from umr.evaluation.domains import same_domain
from umr.evaluation.metrics import Judged, Qrels, expected_hit_at, expected_ndcg_at, judge
from umr.evaluation.modality import ACCURACY_AT, OUTCOMES, Codes, Diagnosis, Flags, accuracy_at, outcomes
from umr.evaluation.per_query import QueryScores
from umr.evaluation.result import PoolResult, Run
from umr.evaluation.stamps import Stamps


@dataclass(frozen=True)
class Kinds:
    """What the queries and the results of a search in a mixed pool are, as places in `MODALITIES`.

    Attributes:
        asked_Q: modality of each query.
        wanted_Q: modality that each query looks for.
        found_QK: modality of each result; -1 where there is none.
        domains: of datasets, by id.
    """

    asked_Q: Codes
    wanted_Q: Codes
    found_QK: Codes
    domains: Mapping[int, str]


def score(
    run: Run,
    setting: str,
    qrels: Qrels,
    depth: int,
    pool: Pool,
    stamps: Stamps,
    ranked_N: Flags | None = None,
    kinds: Kinds | None = None,
) -> tuple[PoolResult, QueryScores]:
    """Score a ranking of Q queries over a pool of N candidates.

    Args:
        run: the ranking.
        setting: `"<dataset>_task<k>"`.
        qrels: judgements above zero.
        depth: results a query that were asked for; no metric looks further.
        pool: what was searched.
        stamps: what is unusual about the search.
        ranked_N: which candidates could be ranked; `None` for all.
        kinds: in a mixed pool, what is what.
    """
    rankings = run.rankings()
    judged = judge(run.qids, rankings, qrels, depth)
    values = {name: metric(judged) for name, metric in metrics_of(setting, depth).items()}
    means = {name: percent(scores_Q) for name, scores_Q in values.items()}
    types_Q, diagnosis = None, None
    if kinds is not None:
        more, types_Q, diagnosis = _diagnosed(run, kinds, judged.gain_QK[:, 0] > 0)
        means |= more
    size = len(pool) if ranked_N is None else int(ranked_N.sum())
    reachable_Q, gains_Q = _reachable(run.qids, qrels, pool, ranked_N)
    chance = {f"hit@{k}": percent(expected_hit_at(reachable_Q, size, k)) for k in (1, 5, 10)}
    if is_text_retrieval(setting):
        chance["ndcg@10"] = percent(expected_ndcg_at(judged, gains_Q, size, 10))
    result = PoolResult(
        size=size,
        metrics=means,
        chance=chance,
        positives=int(judged.relevant_Q.sum()),
        unreachable=int((judged.relevant_Q - reachable_Q).sum()),
        unanswerable=int((reachable_Q == 0).sum()),
        stamps=stamps,
        modality=diagnosis,
    )
    return result, _queries(run, rankings, judged, values, main_metric(setting), reachable_Q, types_Q)


def percent(values_Q: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> float:
    """A mean in percent; 0 of nothing."""
    return 100 * float(values_Q.mean()) if len(values_Q) else 0.0


def _queries(
    run: Run,
    rankings: Mapping[str, Sequence[str]],
    judged: Judged,
    values: Mapping[str, npt.NDArray[np.float64]],
    main: str,
    reachable_Q: npt.NDArray[np.int64],
    types_Q: Codes | None,
) -> QueryScores:
    right_QK = judged.gain_QK > 0
    rank_Q = np.where(right_QK.any(axis=1), right_QK.argmax(axis=1) + 1, 0)
    lists = [rankings[qid] for qid in run.qids]
    return QueryScores(
        qids=run.qids,
        main=main,
        values=dict(values),
        first=tuple(dids[0] if dids else None for dids in lists),
        right=tuple(dids[rank - 1] if rank else None for dids, rank in zip(lists, rank_Q.tolist(), strict=True)),
        rank_Q=rank_Q,
        relevant_Q=judged.relevant_Q,
        reachable_Q=reachable_Q,
        outcomes=None if types_Q is None else tuple(OUTCOMES[kind] if kind >= 0 else None for kind in types_Q.tolist()),
    )


def _diagnosed(run: Run, kinds: Kinds, right_Q: Flags) -> tuple[dict[str, float], Codes, Diagnosis]:
    """Modality accuracies and shares of the types of error in percent, the type of each query, and the counts behind them.

    All of queries that have results.
    """
    some_Q = run.rows_QK[:, 0] >= 0
    found_QK, wanted_Q = kinds.found_QK[some_Q], kinds.wanted_Q[some_Q]
    qids = [qid for qid, has in zip(run.qids, some_Q.tolist(), strict=True) if has]
    first = run.dids.take(pa.array(run.rows_QK[some_Q, 0])).to_pylist()
    found_types = outcomes(right_Q[some_Q], found_QK[:, 0] == wanted_Q, same_domain(qids, first, kinds.domains))
    scores = {f"modality_accuracy@{k}": percent(accuracy_at(found_QK, wanted_Q, k)) for k in ACCURACY_AT}
    scores |= {name: percent(found_types == place) for place, name in enumerate(OUTCOMES) if place}
    types_Q = np.full(len(run.qids), -1, np.int8)
    types_Q[some_Q] = found_types
    return scores, types_Q, Diagnosis.of(kinds.asked_Q[some_Q], found_QK[:, 0], found_types)


def _reachable(
    qids: Sequence[str], qrels: Qrels, pool: Pool, ranked_N: Flags | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """How many relevant candidates of each query can be ranked, and the sum of their relevances; M-BEIR judges some of another pool.

    Shapes (Q,) and (Q,).
    """
    judged = [(row, did, value) for row, qid in enumerate(qids) for did, value in qrels.get(qid, {}).items() if value > 0]
    places = pool.find([did for _, did, _ in judged])
    inside = (places >= 0) & (True if ranked_N is None else ranked_N[places])
    rows, values = (np.array([one[column] for one in judged], np.int64)[inside] for column in (0, 2))
    return np.bincount(rows, minlength=len(qids)), np.asarray(np.bincount(rows, values, minlength=len(qids)), np.float64)
