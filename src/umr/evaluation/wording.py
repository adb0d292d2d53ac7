"""Which instruction a query is asked with."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from umr.data.instructions import choose
from umr.data.mbeir_records import MBeirQuery
from umr.errors import RecipeError

Wording: TypeAlias = Literal["first", "seeded", "none"]
"""The first of a query's instructions, one drawn by its id, or none at all."""
SEED = 2023  # of UniIR's evaluation; the draw itself is ours


def instruction_of(query: MBeirQuery, wording: Wording) -> str | None:
    """The instruction that `query` is asked with; None where it has none."""
    if wording == "none":
        return None
    return choose(query.instructions, query.qid, None if wording == "first" else SEED)


def check_wording(wording: str) -> None:
    """Raise `RecipeError` for a wording that does not exist."""
    if wording not in get_args(Wording):
        raise RecipeError(f"instruction must be one of {', '.join(get_args(Wording))}, not {wording!r}")
