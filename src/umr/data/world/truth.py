"""What is true of what. Records carry these facts as JSON in `src_content`, so that a test can prove there is one right answer.

A *view* says what a picture or passage is about: `{"things": [[name, cell name], ...], "tags": {key: value}}`.
*Claims* are what a caption or a query demands of a view, a list of

    ["at", name, cell]       a thing of that name is in that cell
    [relation, a, b]         some `a` stands in that relation to some `b` (`RELATIONS`)
    ["count", name, n]       exactly n things of that name
    ["same", [[name, cell], ...]]   these things and no others
    ["tag", key, value]      the view's tag has that value

A train candidate may also list, as `"unlabelled_for"`, queries that it answers although they do not name it (see `unlabelled`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from umr.data.world.scene import CELLS, Scene
from umr.errors import DataError

View: TypeAlias = dict[str, Any]
Claim: TypeAlias = list[Any]

UNLABELLED = "unlabelled_for"
TRAIN_POOL = "cand_pool/global/mbeir_union_train_cand_pool.jsonl"

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


def unlabelled_positives(root: Path) -> dict[str, set[str]]:
    """Right answers of train queries that neither their `pos_cand_list` nor their `neg_cand_list` names.

    For audits only, such as how many of them a filter of mined negatives catches; nothing that trains may read it.

    Args:
        root: folder of a World.

    Returns:
        qid -> dids; queries without any are left out.

    Raises:
        DataError: `root` is not a World.
    """
    if not (root / "world.json").is_file():
        raise DataError(f"{root}: not a World (no world.json); make one with `umr world {root}`")
    answers: defaultdict[str, set[str]] = defaultdict(set)
    with (root / TRAIN_POOL).open(encoding="utf-8") as file:
        for line in file:
            candidate = json.loads(line)
            for qid in unlabelled_for(candidate):
                answers[qid].add(candidate["did"])
    return dict(answers)


def unlabelled_for(record: dict[str, Any]) -> list[str]:
    """The queries that a record, if it is a candidate's, answers although they do not name it."""
    source = record.get("src_content")
    return list(json.loads(source).get(UNLABELLED, ())) if source else []
