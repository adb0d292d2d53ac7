"""Examples of what goes wrong: queries whose first result is no right answer, by UniIR's type of error."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from umr.evaluation.modality import OUTCOMES
from umr.evaluation.per_query import QueryScores
from umr.reports.saved import Evaluation

EXAMPLES = 5
"""Of each type."""
WRONG = "wrong"
"""Where no mixed pool was searched there are no types."""
MEANINGS = {
    "type1": "wrong modality",
    "type2": "right modality, wrong domain",
    "type3": "right modality and domain, wrong answer",
    WRONG: "wrong answer",
}


@dataclass(frozen=True)
class Failure:
    """One query whose first result is wrong.

    Attributes:
        setting: of the query.
        pool: that was searched.
        qid: of the query.
        first: did of the first result; `None` without results.
        rank: of the first right answer, from 1; 0 where none was found.
    """

    setting: str
    pool: str
    qid: str
    first: str | None
    rank: int


def failures(evaluation: Evaluation) -> dict[str, list[Failure]]:
    """Examples by type: one of each setting in turn, those with most of the type first, within a setting at random.

    They are drawn by a hash of the qid, so that two evaluations of the same queries show the same ones where both fail.
    """
    found: defaultdict[str, dict[str, list[Failure]]] = defaultdict(dict)
    pool = next((pool for _, pool in evaluation.answers if pool != "local"), "local")
    for (setting, where), answers in evaluation.answers.items():
        if where == pool:
            for kind, one in _wrong(setting, pool, answers):
                found[kind].setdefault(setting, []).append(one)
    return {kind: _in_turn(found[kind])[:EXAMPLES] for kind in (*OUTCOMES[1:], WRONG) if found[kind]}


def _wrong(setting: str, pool: str, answers: QueryScores) -> Iterator[tuple[str, Failure]]:
    for place, (qid, first, rank) in enumerate(zip(answers.qids, answers.first, answers.rank_Q.tolist(), strict=True)):
        kind = WRONG if answers.outcomes is None else answers.outcomes[place]
        if rank != 1 and kind is not None:
            yield kind, Failure(setting, pool, qid, first, rank)


def _in_turn(by_setting: dict[str, list[Failure]]) -> list[Failure]:
    columns = sorted(by_setting.values(), key=len, reverse=True)
    drawn = [sorted(column, key=lambda one: hashlib.blake2b(one.qid.encode()).digest())[:EXAMPLES] for column in columns]
    return [one for turn in zip_longest(*drawn) for one in turn if one is not None]
