"""Quality against cost: what the stored vectors would score with fewer dimensions, fewer bits, and fewer pairs reranked.

Nothing is embedded and no reranker is called. Candidates are made smaller, queries are only cut to the same dimensions; how they are
searched, and put in order again by the whole vectors, is said in `umr.store.smaller`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from umr.evaluation.embeddings import QueryVectors
from umr.evaluation.own import own_rows, without_own
from umr.evaluation.rerank import Reranked, RerankReport, scores_of
from umr.evaluation.result import Run
from umr.evaluation.searches import Searches, Target
from umr.progress import Bar
from umr.store import Rows
from umr.store.quantiser import PRECISIONS, Precision, Quantiser, bytes_of
from umr.store.smaller import dimensions_of, first_step, second_step, smaller

QUERIES = 500
"""Queries of a setting that are asked, spread evenly over its file."""
DEPTHS = (10, 20, 50, 100)


@dataclass(frozen=True)
class Cost:
    """One way to search, and what it scores.

    Attributes:
        dimension: leading numbers of each vector.
        precision: of each number of a candidate.
        rescored: the best are put in order by the whole vectors in fp16.
        depth: results a query that are reranked; 0 for a search alone.
        bytes: of what a search goes through for each candidate; the whole vectors for rescoring come on top, but may lie on a disk.
        main: mean over settings of the main metric, in percent.
        known: share of the pairs reranked whose P(Yes) is stored, in percent; the others count as No. 100 without reranking.
    """

    dimension: int
    precision: Precision
    rescored: bool
    depth: int
    bytes: int
    main: float
    known: float


def costs(
    searches: Searches,
    queries: Mapping[str, QueryVectors],
    targets: Mapping[tuple[str, str], Target],
    rerank: RerankReport | None,
    trained: Sequence[int] = (),
) -> list[Cost]:
    """Search with every dimension and precision, and rerank to every depth.

    Args:
        searches: what was searched: local pools where they were, else the global pool.
        queries: by setting.
        targets: by setting and pool.
        rerank: with its probabilities; `None` for a search alone.
        trained: lengths that the model was trained for; tried beside halves.
    """
    pool = searches.names[0]
    full = next(iter(queries.values())).store.dimension
    ways = [(dimension, precision) for precision in PRECISIONS for dimension in dimensions_of(full, trained)]
    total = len(ways) * sum(len(targets[one.name, pool].pool) for one in searches.settings)
    found: list[Cost] = []
    with searches.timed("quality against cost", total, "candidates") as bar:
        for dimension, precision in ways:
            both = [_runs(searches, queries[one.name], targets[one.name, pool], dimension, precision, bar) for one in searches.settings]
            for rescored in (False, True):
                if rescored and (dimension, precision) == (full, "fp16"):
                    continue  # nothing is left to put in order
                runs = {one.name: each[rescored] for one, each in zip(searches.settings, both, strict=True)}
                found += _scored(searches, pool, runs, rerank, (dimension, precision, rescored))
    return found


def chosen_rows(asked: QueryVectors, count: int) -> npt.NDArray[np.int64]:
    """Rows of at most `count` queries, spread evenly over their file."""
    return np.unique(np.linspace(0, len(asked.qids) - 1, min(count, len(asked.qids))).astype(np.int64))


def _runs(searches: Searches, asked: QueryVectors, target: Target, dimension: int, precision: Precision, bar: Bar) -> tuple[Run, Run]:
    """Rankings by what is kept, and by the whole vectors among the first of them."""
    rows_Q = chosen_rows(asked, QUERIES)
    qids = tuple(asked.qids[row] for row in rows_Q)
    queries_QD = asked.store.take(rows_Q)
    quantiser = None if precision == "fp16" else Quantiser.of(target.vectors, precision, target.vectors.fingerprint, dimension)
    small = smaller(target.vectors, dimension, quantiser)
    own_Q = own_rows(searches.benchmark, qids, target.pool)
    depth = searches.depth + (own_Q is not None)
    found_QR = first_step(queries_QD, small, depth, bar)

    def run(by: Rows) -> Run:
        rows_QK, scores_QK = without_own(*second_step(queries_QD, found_QR, by, depth), own_Q, searches.depth)
        return Run(qids, rows_QK, scores_QK, target.vectors.ids)

    return run(small.kept), run(target.vectors)


def _scored(
    searches: Searches, pool: str, runs: Mapping[str, Run], rerank: RerankReport | None, way: tuple[int, Precision, bool]
) -> Iterator[Cost]:
    for depth in (0, *depths_of(rerank)):
        mains, shares = [], []
        for one in searches.settings:
            run, known = runs[one.name], 1.0
            if rerank is not None and depth:
                run, known = _reranked(run, rerank.searches[one.name, pool], depth, rerank.weights[one.name])
            mains.append(scores_of(run, one.name, searches.benchmark.qrels(one, searches.split), searches.depth)[0])
            shares.append(known)
        yield Cost(*way, depth, bytes_of(way[0], way[1]), float(np.mean(mains)), 100 * float(np.mean(shares)))


def depths_of(rerank: RerankReport | None) -> list[int]:
    """Depths to rerank to: up to that of which probabilities are stored, itself included."""
    return [] if rerank is None else sorted({*(depth for depth in DEPTHS if depth < rerank.depth), rerank.depth})


def _reranked(run: Run, stored: Reranked, depth: int, weight: float) -> tuple[Run, float]:
    """The run with its first results in the order of score + weight * P(Yes), and the share of the pairs that have one."""
    places = {qid: place for place, qid in enumerate(stored.recall.qids)}
    first_QK = run.rows_QK[:, :depth]
    yes_QK = np.full(first_QK.shape, np.nan, np.float32)
    for row, qid in enumerate(run.qids):
        yes_QK[row] = _looked_up(first_QK[row], stored.recall.rows_QK[places[qid]], stored.yes_QK[places[qid]])
    known = ~np.isnan(yes_QK)
    return Reranked(run, np.where(known, yes_QK, np.float32(0))).fused(weight), float(known.mean())


def _looked_up(wanted_K: npt.NDArray[np.int64], rows_R: npt.NDArray[np.int64], yes_S: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """P(Yes) of candidates by their rows in the pool; not a number where none is stored. The first S of R rows have one."""
    known = dict(zip(rows_R[: len(yes_S)].tolist(), yes_S.tolist(), strict=True))
    return np.array([known.get(row, np.nan) for row in wanted_K.tolist()], np.float32)


def to_json(found: Sequence[Cost]) -> list[dict[str, Any]]:
    """A row for each way."""
    return [vars(one) for one in found]
