"""Limits on scores that may differ by modality pair: a number, or a mapping such as `{"text->image": 0.6, "other": 0.7}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from umr.data.mbeir_records import modality_of

MODALITIES = ("text", "image", "image,text", "video")
ARROW = "->"
OTHER = "other"
"""Key of the limit for pairs that a mapping does not name."""

Limit: TypeAlias = float | dict[str, float | None] | None

RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "max_similarity": (lambda value: -1 < value < 1, "above -1 and below 1"),
    "max_relative": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "margin": (lambda value: 0 <= value < float("inf"), "at least 0"),
}
"""What each of the limits may be."""


def modality_named(name: object) -> str:
    """The canonical name: `"text,image"` is `"image,text"`. Raises `ValueError` for an unknown one."""
    found = modality_of(name)
    if found is None:
        raise ValueError(f"unknown modality {name!r}; known are text, image, image,text and video")
    return found


def pair_named(name: object) -> str:
    """The canonical name of a pair, such as `"image,text->image"`. Raises `ValueError` for an unknown one."""
    ends = str(name).split(ARROW)
    if len(ends) != 2:
        raise ValueError(f"{name!r}: a pair is written query modality{ARROW}candidate modality, such as text{ARROW}image, or {OTHER}")
    return ARROW.join(modality_named(end.strip()) for end in ends)


def read_limit(value: object, setting: str) -> Limit:
    """A limit from plain data, its pairs by their canonical names.

    Args:
        value: a number, a mapping from pairs to numbers or null, or `None`.
        setting: key of `RANGES`.

    Raises:
        ValueError: anything else, a number out of range, an unknown modality, or a pair that occurs twice.
    """
    if not isinstance(value, Mapping):
        return _number(value, setting)
    if not value:
        raise ValueError("an empty mapping limits nothing; write null")
    found: dict[str, float | None] = {}
    for name, limit in value.items():
        key = OTHER if name == OTHER else pair_named(name)
        if key in found:
            raise ValueError(f"names {key} twice")
        found[key] = _number(limit, setting)
    return found


def _number(value: object, setting: str) -> float | None:
    if value is None:
        return None
    within, words = RANGES[setting]
    try:
        number = float("nan") if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = float("nan")
    if not within(number):
        raise ValueError(f"must be a number {words}, null, or a mapping of modality pairs to such numbers, not {value!r}")
    return number


def limit_for(limit: Limit, asking: str, modality: str) -> float | None:
    """The limit for candidates of one modality to queries of another."""
    if not isinstance(limit, dict):
        return limit
    return limit.get(f"{asking}{ARROW}{modality}", limit.get(OTHER))


def pairs_of(limit: Limit) -> list[tuple[str, str]]:
    """The pairs that a limit names: query modality, candidate modality."""
    names = [name.split(ARROW) for name in limit if name != OTHER] if isinstance(limit, dict) else []
    return [(asking, modality) for asking, modality in names]
