"""What is true of what. Records carry these facts as JSON in `src_content`, so that a test can prove there is one right answer.

A *view* says what a picture or passage is about: `{"things": [[name, cell name], ...], "tags": {key: value}}`.
*Claims* are what a caption or a query demands of a view, a list of

    ["at", name, cell]       a thing of that name is in that cell
    [relation, a, b]         some `a` stands in that relation to some `b` (`RELATIONS`)
    ["count", name, n]       exactly n things of that name
    ["same", [[name, cell], ...]]   these things and no others
    ["tag", key, value]      the view's tag has that value
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from umr.data.world.scene import CELLS, Scene

View: TypeAlias = dict[str, Any]
Claim: TypeAlias = list[Any]

RELATIONS = ("left of", "right of", "above", "below")
_CELL = {name: cell for cell, name in enumerate(CELLS)}


def view_of(scene: Scene, **tags: str) -> View:
    """The view of a scene, with further tags."""
    return {"things": things_of(scene), "tags": tags}


def things_of(scene: Scene) -> list[list[str]]:
    """`[[name, cell name], ...]` in the scene's order."""
    return [[thing.kind.name, CELLS[thing.cell]] for thing in scene]


def tag(key: str, value: str) -> Claim:
    """The claim that a view's tag has this value."""
    return ["tag", key, value]


def related(relation: str, first: int, second: int) -> bool:
    """Whether cell `first` stands in `relation` to cell `second`."""
    if relation == "left of":
        return first % 3 < second % 3
    if relation == "right of":
        return first % 3 > second % 3
    if relation == "above":
        return first // 3 < second // 3
    return first // 3 > second // 3


def holds(claims: Sequence[Claim], view: View) -> bool:
    """Whether every claim is true of the view."""
    return all(_holds(claim, view) for claim in claims)


def _holds(claim: Claim, view: View) -> bool:
    what, things = claim[0], view["things"]
    if what == "at":
        return claim[1:] in things
    if what == "count":
        return sum(name == claim[1] for name, _ in things) == claim[2]
    if what == "same":
        return sorted(claim[1]) == sorted(things)
    if what == "tag":
        return bool(view["tags"].get(claim[1]) == claim[2])
    firsts = [_CELL[cell] for name, cell in things if name == claim[1]]
    seconds = [_CELL[cell] for name, cell in things if name == claim[2]]
    return any(related(what, first, second) for first in firsts for second in seconds)
