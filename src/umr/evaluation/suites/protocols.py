"""How answers are judged: in a pool that all queries share, by hits or by average precision, or in a gallery of each query's own.

Pools are ranked as everywhere in this package: exactly, of equal scores the lower row first. In a gallery the right answer comes first
in the files, so of equal scores it comes last in the ranking; a model that gives every item the same vector scores 0 and not 100.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.evaluation.metrics import Judged, Scores, expected_hit_at, hit_at, judge, recall_at
from umr.progress import Bar
from umr.protocols import Vectors
from umr.store import VectorStore, exact_topk

DEPTH = 50
"""Results a query that a pool is searched for: CIRCO's server takes so many, and no metric looks further."""

Lists = Mapping[str, Sequence[str]]
"""Candidate ids by query id."""


@dataclass(frozen=True)
class Ranked:
    """What was found.

    Attributes:
        dids: candidate ids by query id, best first, at most `DEPTH`.
        scores: their inner products, or what a reranker made of them.
    """

    dids: dict[str, list[str]]
    scores: dict[str, list[float]]


@dataclass(frozen=True)
class Outcome:
    """How good it is.

    Attributes:
        values: by metric, one number a query, 0 to 1.
        chance: what random rankings would score, 0 to 1, for metrics where that is known.
    """

    values: dict[str, Scores]
    chance: dict[str, float]


class Protocol(typing.Protocol):
    """What a task asks of its protocol."""

    def is_answerable(self, qid: str, known: Set[str]) -> bool:
        """Whether a query can be judged when only these candidates are there."""
        ...

    def rank(self, qids: Sequence[str], queries_QD: Vectors, candidates: VectorStore, bar: Bar) -> Ranked:
        """Search. `bar` is advanced by the number of queries."""
        ...

    def judge(self, qids: Sequence[str], ranked: Ranked, known: Set[str]) -> Outcome:
        """Judge rankings of these candidates."""
        ...


@dataclass(frozen=True)
class Hits:
    """Whether a right answer is among the first k of the pool: what papers on caption retrieval call R@k.

    Where a query has several right answers, `recall@k`, the share of them that is found, is measured too.

    Attributes:
        right: right answers of each query.
        cuts: values of k.
        left_out: candidates that a query does not rank, such as the images it shows itself; a right answer stays.
    """

    right: Lists
    cuts: tuple[int, ...] = (1, 5, 10)
    left_out: Lists = field(default_factory=dict)

    def is_answerable(self, qid: str, known: Set[str]) -> bool:
        """Whether a right answer is there."""
        return any(did in known for did in self.right[qid])

    def rank(self, qids: Sequence[str], queries_QD: Vectors, candidates: VectorStore, bar: Bar) -> Ranked:
        """See `Protocol`."""
        return _rank_pool(qids, queries_QD, candidates, {qid: self._hidden(qid) for qid in qids}, bar)

    def judge(self, qids: Sequence[str], ranked: Ranked, known: Set[str]) -> Outcome:
        """See `Protocol`."""
        judged = _judged(qids, ranked, self.right)
        values = {f"hit@{k}": hit_at(judged, k) for k in self.cuts}
        if any(len(self.right[qid]) > 1 for qid in qids):
            values |= {f"recall@{k}": recall_at(judged, k) for k in self.cuts}
        sizes_Q = np.array([len(known) - len(self._hidden(qid) & known) for qid in qids], np.int64)
        right_Q = np.array([len(known & set(self.right[qid])) for qid in qids], np.int64)
        return Outcome(values, {f"hit@{k}": _chance(right_Q, sizes_Q, k) for k in self.cuts})

    def _hidden(self, qid: str) -> set[str]:
        return set(self.left_out.get(qid, ())) - set(self.right[qid])


@dataclass(frozen=True)
class AveragePrecision:
    """mAP@k with several right answers, as CIRCO (Baldrati et al., ICCV 2023) is measured.

    AP@k of a query is the sum of the precisions at the ranks of its right answers among the first k, over min(k, right answers).
    `target_hit@k` looks for one of them alone, the picture that the query was written for.

    Attributes:
        right: right answers of each query.
        target: of each query, one of them.
        cuts: values of k.
    """

    right: Lists
    target: Mapping[str, str]
    cuts: tuple[int, ...] = (5, 10, 25, 50)

    def is_answerable(self, qid: str, known: Set[str]) -> bool:
        """Whether all right answers are there: the measure divides by their number."""
        return all(did in known for did in self.right[qid])

    def rank(self, qids: Sequence[str], queries_QD: Vectors, candidates: VectorStore, bar: Bar) -> Ranked:
        """See `Protocol`."""
        return _rank_pool(qids, queries_QD, candidates, {}, bar)

    def judge(self, qids: Sequence[str], ranked: Ranked, known: Set[str]) -> Outcome:
        """See `Protocol`."""
        judged = _judged(qids, ranked, self.right)
        targeted = _judged(qids, ranked, {qid: (self.target[qid],) for qid in qids})
        values = {f"map@{k}": average_precision_at(judged, k) for k in self.cuts}
        values |= {f"target_hit@{k}": hit_at(targeted, k) for k in self.cuts}
        return Outcome(values, {f"target_hit@{k}": min(1.0, k / len(known)) for k in self.cuts})


@dataclass(frozen=True)
class Unjudged:
    """Rankings alone, for queries whose answers only a test server knows."""

    def is_answerable(self, qid: str, known: Set[str]) -> bool:
        """Always: nothing is judged here."""
        return True

    def rank(self, qids: Sequence[str], queries_QD: Vectors, candidates: VectorStore, bar: Bar) -> Ranked:
        """See `Protocol`."""
        return _rank_pool(qids, queries_QD, candidates, {}, bar)

    def judge(self, qids: Sequence[str], ranked: Ranked, known: Set[str]) -> Outcome:
        """Nothing."""
        return Outcome({}, {})


@dataclass(frozen=True)
class Galleries:
    """Whether the right answer is among the first k of the query's own gallery: GeneCIS, MMEB, and pairs of captions.

    Attributes:
        target: right answer of each query.
        others: wrong ones of each query; a candidate that is the right answer itself is passed over.
        cuts: k by name of the metric.
    """

    target: Mapping[str, str]
    others: Lists
    cuts: Mapping[str, int]

    def is_answerable(self, qid: str, known: Set[str]) -> bool:
        """Whether the right answer and a wrong one are there."""
        return self.target[qid] in known and bool(self._wrong(qid, known))

    def rank(self, qids: Sequence[str], queries_QD: Vectors, candidates: VectorStore, bar: Bar) -> Ranked:
        """See `Protocol`."""
        rows = {did: row for row, did in enumerate(candidates.ids.to_pylist())}
        found = Ranked({}, {})
        for place, qid in enumerate(qids):
            gallery = [*self._wrong(qid, rows.keys()), self.target[qid]]
            found_GD = candidates.take(np.array([rows[did] for did in gallery], np.int64))
            # Each pair on its own and in double precision, so that equal vectors tie exactly; the sort leaves the target behind its ties.
            scores_G = (found_GD.astype(np.float64) * queries_QD[place]).sum(axis=1)
            order = np.argsort(-scores_G, kind="stable")[:DEPTH]
            found.dids[qid], found.scores[qid] = [gallery[one] for one in order], scores_G[order].tolist()
            bar.advance(1)
        return found

    def judge(self, qids: Sequence[str], ranked: Ranked, known: Set[str]) -> Outcome:
        """See `Protocol`."""
        values = {name: np.array([self.target[qid] in ranked.dids[qid][:k] for qid in qids], np.float64) for name, k in self.cuts.items()}
        sizes_Q = np.array([1 + len(self._wrong(qid, known)) for qid in qids], np.int64)
        return Outcome(values, {name: float(np.minimum(1, k / sizes_Q).mean()) for name, k in self.cuts.items()})

    def _wrong(self, qid: str, known: Set[str]) -> list[str]:
        return [did for did in dict.fromkeys(self.others[qid]) if did != self.target[qid] and did in known]


def average_precision_at(judged: Judged, k: int) -> Scores:
    """Precisions at the ranks of relevant results among the first `k`, summed, over min(k, relevant candidates). Shape (Q,)."""
    relevant_QK = judged.gain_QK[:, :k] > 0
    precision_QK = relevant_QK.cumsum(axis=1) / np.arange(1, relevant_QK.shape[1] + 1)
    return np.asarray((precision_QK * relevant_QK).sum(axis=1) / np.clip(judged.relevant_Q, 1, k))


def _rank_pool(qids: Sequence[str], queries_QD: Vectors, candidates: VectorStore, hidden: Mapping[str, Set[str]], bar: Bar) -> Ranked:
    """The best `DEPTH` candidates of each query that are not hidden from it."""
    more = max(map(len, hidden.values()), default=0)
    rows_QK, scores_QK = exact_topk(queries_QD, candidates, DEPTH + more)
    found = candidates.ids.take(pa.array(rows_QK.ravel())).to_pylist()
    ranked, width = Ranked({}, {}), rows_QK.shape[1]
    for place, qid in enumerate(qids):
        not_shown: Set[str] = hidden.get(qid, set())
        dids = found[place * width : (place + 1) * width]
        kept = [(did, score) for did, score in zip(dids, scores_QK[place].tolist(), strict=True) if did not in not_shown][:DEPTH]
        ranked.dids[qid], ranked.scores[qid] = [did for did, _ in kept], [score for _, score in kept]
    bar.advance(len(qids))
    return ranked


def _judged(qids: Sequence[str], ranked: Ranked, right: Lists) -> Judged:
    return judge(qids, ranked.dids, {qid: dict.fromkeys(right[qid], 1) for qid in qids}, DEPTH)


def _chance(right_Q: npt.NDArray[np.int64], sizes_Q: npt.NDArray[np.int64], k: int) -> float:
    """Mean over queries of the chance that k candidates drawn at random include a right one."""
    parts = [expected_hit_at(right_Q[sizes_Q == size], int(size), k) for size in np.unique(sizes_Q)]
    return float(np.concatenate(parts).mean())
