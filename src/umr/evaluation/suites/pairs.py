"""A picture and two captions, of which one is wrong: the task of CC-Neg and SugarCrepe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umr.evaluation.suites.protocols import Galleries
from umr.evaluation.suites.task import Items, Task
from umr.items import Item

Pair = tuple[Path, str, str]
"""Picture, right caption, wrong caption."""


def pair_accuracy(name: str, items: str, pairs: Sequence[Pair]) -> Task:
    """How often the right caption is closer to the picture than the wrong one; equally close counts as wrong.

    Args:
        name: of the task.
        items: for the folders of vectors.
        pairs: taken as they are.
    """
    queries = Items(
        f"images{items}", tuple(f"image {n}" for n in range(len(pairs))), lambda n: Item.of(image=pairs[n][0], id=queries.ids[n])
    )
    texts = [text for _, right, wrong in pairs for text in (right, wrong)]
    ids = tuple(f"{kind} {n}" for n in range(len(pairs)) for kind in ("right", "wrong"))
    pool = Items(f"captions{items}", ids, lambda n: Item.of(text=texts[n], id=ids[n]))
    target = {qid: f"right {n}" for n, qid in enumerate(queries.ids)}
    others = {qid: [f"wrong {n}"] for n, qid in enumerate(queries.ids)}
    return Task(name, queries, pool, Galleries(target, others, {"accuracy": 1}))
