"""Random candidates for queries whose two sets are used up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from umr.mining.content import Checks
from umr.mining.filters import GLOBAL, KEPT, NONE, OPEN, Codes, Lists, judge_scores
from umr.mining.queries import Ragged
from umr.mining.rules import Rules, walk

TRIES = 64
"""Candidates of a query that may fail the filters before it is given up: a reranker may call all of a pool right."""

ScoresOf: TypeAlias = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.float32]]
"""Given the queries and the rows of P candidates, each one's score, nan where none is known."""


@dataclass(frozen=True)
class Drawn:
    """Random candidates of Q queries, up to E each, in the order in which they were drawn.

    Attributes:
        lists: without ranks, for no search found them.
        codes_QE: `KEPT`, the filter that dropped one, or `NONE` where there is no candidate.
        yes_QE: what the reranker said, nan where it was not asked.
    """

    lists: Lists
    codes_QE: Codes
    yes_QE: npt.NDArray[np.float32]


@dataclass
class _Tried:
    """The candidates tried for one query."""

    rows: Iterator[int]
    missing: int
    left: int
    outcomes: list[tuple[int, float, int, float]] = field(default_factory=list)


def draw_randomly(
    missing_Q: npt.NDArray[np.int64],
    lists: Lists,
    right: Sequence[Ragged],
    own_Q: npt.NDArray[np.int64],
    hashes_Q: npt.NDArray[np.uint64],
    pool_rows: npt.NDArray[np.int64],
    positive_Q: npt.NDArray[np.float32],
    rules: Rules,
    scores_of: ScoresOf,
    checks: Checks,
) -> Drawn:
    """Draw candidates of the modality looked for that are no positives and that the search did not find.

    Of this modality, because that is what C2 would be if lists were longer: right modality, low rank. One of a wrong modality would
    teach nothing, since C1 is empty where the model ranks none of them above the positive. A candidate that the search found
    has been judged already. Filters on scores and the checks of content and reranker apply to these candidates, too.

    Args:
        missing_Q: negatives that each query still wants.
        lists: what was found.
        right: positives, by training lines and by judgements.
        own_Q: row whose id is the query's, -1 where there is none: in some benchmarks that is the query itself.
        hashes_Q: of qid and seed.
        pool_rows: the pool's candidates of the modality looked for.
        positive_Q: best score of a positive, nan where none is known.
        rules: which filters are on.
        scores_of: gives the scores of what was drawn.
        checks: decide about single candidates.
    """
    tried: dict[int, _Tried] = {}
    for query in np.flatnonzero(missing_Q > 0).tolist():
        known = {int(own_Q[query]), *lists.rows_QW[query].tolist(), *(row for part in right for row in part[query].tolist())}
        tried[query] = _Tried(_others(pool_rows, known, int(hashes_Q[query])), int(missing_Q[query]), TRIES)
    modality = np.uint8(0 if rules.target is None else rules.target)
    while True:
        proposed = [(query, next(one.rows, -1)) for query, one in tried.items() if one.missing and one.left]
        proposed = [(query, row) for query, row in proposed if row >= 0]
        if not proposed:
            break
        queries_P, rows_P = (np.array(column, np.int64) for column in zip(*proposed, strict=True))
        scores_P, codes_P = scores_of(queries_P, rows_P), np.full(len(rows_P), OPEN, np.uint8)
        judge_scores(codes_P, scores_P, np.full(len(rows_P), modality), positive_Q[queries_P], rules)
        yes_P, passed = np.full(len(rows_P), np.nan, np.float32), np.flatnonzero(codes_P == OPEN)
        codes_P[passed], yes_P[passed] = checks.look(queries_P[passed], rows_P[passed])
        for (query, row), *outcome in zip(proposed, scores_P.tolist(), codes_P.tolist(), yes_P.tolist(), strict=True):
            tried[query].outcomes.append((row, *outcome))
            tried[query].missing -= outcome[1] == KEPT
            tried[query].left -= outcome[1] != KEPT
    return _table(len(missing_Q), tried)


def _others(pool_rows: npt.NDArray[np.int64], known: set[int], seed: int) -> Iterator[int]:
    rows = (int(pool_rows[place]) for place in walk(len(pool_rows), seed))
    return (row for row in rows if row not in known)


def _table(queries: int, tried: dict[int, _Tried]) -> Drawn:
    shape = queries, max((len(one.outcomes) for one in tried.values()), default=0)
    rows_QE, codes_QE = np.full(shape, -1, np.int64), np.full(shape, NONE, np.uint8)
    scores_QE, yes_QE = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    for query, one in tried.items():
        for place, (row, score, code, yes) in enumerate(one.outcomes):
            rows_QE[query, place], scores_QE[query, place] = row, score
            codes_QE[query, place], yes_QE[query, place] = code, yes
    pools_QE = np.full(shape, GLOBAL, np.uint8)
    return Drawn(Lists(rows_QE, np.zeros(shape, np.int32), scores_QE, pools_QE), codes_QE, yes_QE)
