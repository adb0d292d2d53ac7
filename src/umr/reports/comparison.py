"""Evaluations compared query by query: intervals, a paired test, wins and losses by task, modalities, and what changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from umr.data.mbeir_records import is_text_retrieval
from umr.evaluation.per_query import QueryScores
from umr.evaluation.stamps import union
from umr.reports.comparable import check
from umr.reports.saved import Evaluation
from umr.study.statistics import DRAWS, bootstrap, holm, sign_flip

FORMAT = 1
TEXT = "text"
"""Text-retrieval sets have an average of their own."""
SHOWN = 8
"""Queries that changed most, each way."""
NOTE = (
    "Main metric of each setting in percent; an average counts settings alike. Intervals: 95 %, percentiles of "
    f"{DRAWS:,} bootstrap samples of each setting's queries. p: paired randomisation test on the queries, {DRAWS:,} random signs; of "
    "settings with Holm's correction for their number. All of this speaks about other queries of the same kind, not about other "
    "training runs. Wins and losses: queries that score higher or lower than with the first evaluation. *: not measured as published."
)

Scores = npt.NDArray[np.float64]
Key = tuple[str, str]


def compare(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Compare evaluations with the first of them.

    Args:
        evaluations: at least two, of the same queries, asked in the same way.

    Returns:
        What `umr compare --json` writes: see `docs/comparing.md`. Seeded: equal evaluations give an equal result.

    Raises:
        RecipeError: numbers that cannot be compared.
    """
    check(evaluations)
    first, others = evaluations[0], evaluations[1:]
    pools: dict[str, Any] = {}
    for pool in dict.fromkeys(_pool_of(key) for key in first.answers):
        keys = [key for key in first.answers if _pool_of(key) == pool]
        pools[pool] = _pool(keys, first, others)
    return {
        "format": FORMAT,
        "baseline": first.name,
        "evaluations": {one.name: _about(one.content) for one in evaluations},
        "data": first.content["data"],
        "instruction": first.content["instruction"],
        "note": NOTE,
        "pools": pools,
        "modality": _modality(evaluations),
        "changed": {one.name: {"better": _changed(first, one, 1), "worse": _changed(first, one, -1)} for one in others},
    }


def _pool_of(key: Key) -> str:
    return TEXT if is_text_retrieval(key[0]) else key[1]


def _about(content: Mapping[str, Any]) -> dict[str, Any]:
    reranker = content.get("rerank", {}).get("fingerprint")
    return {**content["model"], **({"reranker": reranker} if reranker else {})}


def _pool(keys: Sequence[Key], first: Evaluation, others: Sequence[Evaluation]) -> dict[str, Any]:
    rows = [_row([key], first, others) for key in keys]
    for name in (one.name for one in others):
        raised = holm([row["against"][name]["p"] for row in rows])
        for row, value in zip(rows, raised, strict=True):
            row["against"][name]["p_holm"] = value
    about = {one["setting"]: one for one in first.content["settings"]}
    named = [
        {"setting": setting, "task": about[setting]["task"], "metric": about[setting]["main_metric"], **row}
        for (setting, _), row in zip(keys, rows, strict=True)
    ]
    return {"settings": named, "average": _row(keys, first, others)}


def _row(keys: Sequence[Key], first: Evaluation, others: Sequence[Evaluation]) -> dict[str, Any]:
    """Scores of some settings of a pool, and how the others compare with the first."""
    base = [main(first, key) for key in keys]
    row: dict[str, Any] = {"queries": sum(map(len, base)), "scores": {first.name: _score(first, keys, base)}, "against": {}}
    for other in others:
        values = [_in_order(other.answers[key], main(other, key), first.answers[key].qids) for key in keys]
        differences = [theirs - mine for theirs, mine in zip(values, base, strict=True)]
        everything = np.concatenate(differences)
        row["scores"][other.name] = _score(other, keys, values)
        row["against"][other.name] = {
            **_estimate(differences),
            "p": sign_flip(differences),
            "wins": int((everything > 0).sum()),
            "losses": int((everything < 0).sum()),
            "ties": int((everything == 0).sum()),
        }
    return row


def main(evaluation: Evaluation, key: Key) -> Scores:
    """Main metric of the queries of a setting in a pool, 0 to 1."""
    answers = evaluation.answers[key]
    return answers.values[answers.main]


def _in_order(answers: QueryScores, values_Q: Scores, qids: Sequence[str]) -> Scores:
    places = {qid: place for place, qid in enumerate(answers.qids)}
    return values_Q[[places[qid] for qid in qids]]


def _score(evaluation: Evaluation, keys: Sequence[Key], groups: Sequence[Scores]) -> dict[str, Any]:
    """Mean, interval, and what makes it differ from the published way of measuring."""
    pools = {one["setting"]: one["pools"] for one in evaluation.content["settings"]}
    return {**_estimate(groups), "stamps": union([pools[setting][pool]["stamps"] for setting, pool in keys])}


def _estimate(groups: Sequence[Scores]) -> dict[str, float]:
    """Mean over groups and its interval, in percent."""
    low, high = bootstrap(groups)
    return {"mean": 100 * float(np.mean([group.mean() for group in groups])), "low": 100 * low, "high": 100 * high}


def _modality(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """By mixed pool and evaluation: queries by their modality and that of their first result, also in percent of the row."""
    pools = evaluations[0].content.get("modality", {})
    return {pool: {one.name: _matrix(one.content["modality"][pool]) for one in evaluations} for pool in pools}


def _matrix(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("matrix", "shares", "errors")}


def _changed(first: Evaluation, other: Evaluation, sign: int) -> list[dict[str, Any]]:
    """Queries that gained (`sign` 1) or lost (-1) most: by the main metric, then by the reciprocal rank of the first right answer."""
    found = []
    for key, mine in first.answers.items():
        theirs = other.answers[key]
        places = {qid: place for place, qid in enumerate(theirs.qids)}
        order_Q = np.array([places[qid] for qid in mine.qids], np.int64)
        main_Q = sign * (main(other, key)[order_Q] - main(first, key))
        near_Q = sign * (_reciprocal(theirs)[order_Q] - _reciprocal(mine))
        for place in np.lexsort((-near_Q, -main_Q))[: SHOWN * len(first.content["averages"])].tolist():
            if main_Q[place] > 0 or (main_Q[place] == 0 and near_Q[place] > 0):
                change = _change(key, mine, place, theirs, int(order_Q[place]))
                found.append((float(-main_Q[place]), float(-near_Q[place]), key, change["qid"], change))
    most: dict[Key, dict[str, Any]] = {}  # of a query that changed in several pools, where it changed most
    for *_, change in sorted(found, key=lambda one: one[:-1]):
        most.setdefault((change["setting"], change["qid"]), change)
    return list(most.values())[:SHOWN]


def _change(key: Key, mine: QueryScores, place: int, theirs: QueryScores, other: int) -> dict[str, Any]:
    """Before and after. Ranks count from 1; `None`: no right answer among the results."""
    both = ((mine, place), (theirs, other))
    return {
        "setting": key[0],
        "pool": key[1],
        "qid": mine.qids[place],
        "main": [float(one.values[one.main][row]) for one, row in both],
        "rank": [int(one.rank_Q[row]) or None for one, row in both],
        "first": [one.first[row] for one, row in both],
        "right": mine.right[place] or theirs.right[other],
    }


def _reciprocal(answers: QueryScores) -> Scores:
    return np.where(answers.rank_Q > 0, 1 / np.maximum(answers.rank_Q, 1), 0.0)
