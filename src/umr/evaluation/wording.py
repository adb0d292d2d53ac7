"""Which instruction a query is asked with.

first        the first of its wordings, as pyserini does
seeded       one drawn by its id, with UniIR's seed
random-7     one drawn by its id, with seed 7
wording-2    the second, beginning anew at the first where there are fewer
none         no instruction
"""

from __future__ import annotations

import re
from typing import TypeAlias

from umr.data.instructions import choose
from umr.data.mbeir_records import MBeirQuery
from umr.errors import RecipeError

Wording: TypeAlias = str
"""One of the names above."""
SEED = 2023  # of UniIR's evaluation; the draw itself is ours
_NAMED = re.compile(r"first|seeded|none|random-(?P<seed>[0-9]{1,18})|wording-(?P<place>[1-9][0-9]?)")


def instruction_of(query: MBeirQuery, wording: Wording) -> str | None:
    """The instruction that `query` is asked with; None where it has none. Raises `RecipeError` for an unknown wording."""
    match = _match(wording)
    if wording == "none":
        return None
    if match["place"]:
        return query.instructions[(int(match["place"]) - 1) % len(query.instructions)] if query.instructions else None
    seed = int(match["seed"]) if match["seed"] else SEED
    return choose(query.instructions, query.qid, None if wording == "first" else seed)


def canonical(wording: Wording) -> Wording:
    """One name for what is asked alike: `wording-1` is `first`, `random-2023` is `seeded`."""
    return {"wording-1": "first", f"random-{SEED}": "seeded"}.get(wording, wording)


def check_wording(wording: str) -> None:
    """Raise `RecipeError` for a wording that does not exist."""
    _match(wording)


def _match(wording: str) -> re.Match[str]:
    match = _NAMED.fullmatch(wording)
    if match is None:
        raise RecipeError(f"instruction must be one of first, seeded, none, random-<seed>, wording-<place>, not {wording!r}")
    return match
