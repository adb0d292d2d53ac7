"""Which evaluations may be compared: those that asked the same queries in the same way of the same data, in the same pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from umr.errors import RecipeError
from umr.reports.saved import Evaluation

Content = dict[str, Any]


def check(evaluations: Sequence[Evaluation]) -> None:
    """Raise `RecipeError` unless all of them may be compared with the first: one line that names both, what differs, and how."""
    if len(evaluations) < 2:
        raise RecipeError("umr compare needs at least two evaluations")
    first = evaluations[0]
    for other in evaluations[1:]:
        for what, of in _CONDITIONS.items():
            mine, theirs = of(first.content), of(other.content)
            if mine != theirs:
                raise RecipeError(
                    f"{first.name} and {other.name} cannot be compared, for their {what} differ: {_say(mine, theirs)}; "
                    "evaluate both in the same way"
                )
        for key, asked in first.answers.items():
            if set(asked.qids) != set(other.answers[key].qids):
                raise RecipeError(
                    f"{first.name} and {other.name} cannot be compared: their queries of {key[0]} differ in spite of one data fingerprint; "
                    "evaluate both again"
                )


def _pools(content: Content) -> list[str]:
    return sorted({pool for one in content["settings"] for pool in one["pools"]})


def _sizes(content: Content) -> dict[str, int]:
    return {f"{one['setting']} {pool}": found["size"] for one in content["settings"] for pool, found in one["pools"].items()}


def _metrics(content: Content) -> dict[str, str]:
    return {one["setting"]: one["main_metric"] for one in content["settings"]}


def _settings(content: Content) -> list[str]:
    return [one["setting"] for one in content["settings"]]


_CONDITIONS: dict[str, Callable[[Content], Any]] = {
    "splits": lambda content: content["data"]["split"],
    "tasks": _settings,
    "pools": _pools,
    "metrics": _metrics,
    "instruction wordings": lambda content: content["instruction"],
    "data fingerprints": lambda content: content["data"]["fingerprint"],
    "right answers counted": lambda content: content.get("positives"),
    "records left out": lambda content: content["data"]["left_out"],
    "pool sizes": _sizes,
}
"""What must agree, in the order in which it is looked at: a wrong split changes the data fingerprint, too."""


def _say(mine: Any, theirs: Any) -> str:
    """Both values, of tables and lists what differs alone."""
    if isinstance(mine, dict):
        keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
        return f"{keys[0]}: {mine.get(keys[0], 'none')} and {theirs.get(keys[0], 'none')}"
    if isinstance(mine, list):
        return f"{', '.join(mine)} and {', '.join(theirs)}"
    return f"{mine} and {theirs}"
