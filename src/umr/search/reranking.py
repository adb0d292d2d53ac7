"""Reranking the first results of a search: best first, within a time budget, passing over what cannot be opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from umr.errors import MediaError, RenderError
from umr.items import Item

if TYPE_CHECKING:
    from umr.mining.fill import PairScorer

FIRST_CALL = 4
"""Pairs of the first call under a time budget: enough to learn what one costs."""
MARGIN = 0.8
"""Share of the time left that the next call is made for, since pairs differ in cost."""

OPENERS = 4
"""Files opened at a time."""


@dataclass
class Reranked:
    """What the reranker said.

    Attributes:
        yes: P(Yes) by id, of those that were reranked.
        reached: results that were looked at, from the first on.
        notes: one line for each that could not be opened, and one if time ran out.
    """

    yes: dict[str, float] = field(default_factory=dict)
    reached: int = 0
    notes: list[str] = field(default_factory=list)


def rerank(
    reranker: PairScorer,
    query: Item,
    instruction: str | None,
    ids: Sequence[str],
    open_item: Callable[[str], Item],
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Reranked:
    """Ask about results in their order, until the end or until time is up.

    The first call is always made, so that a budget which is too small still reranks a few; after it, no call is begun that would
    probably end too late.

    Args:
        reranker: gives P(Yes).
        query, instruction: what was searched for.
        ids: of the results, best first.
        open_item: the item of an id; may raise `MediaError`.
        seconds: wall time for all of it; None for no limit.
        clock: for tests.
    """
    found, begun = Reranked(), clock()
    size = len(ids) if seconds is None else FIRST_CALL
    while found.reached < len(ids) and size > 0:
        call = ids[found.reached : found.reached + size]
        _score(reranker, query, instruction, call, open_item, found)
        found.reached += len(call)
        if seconds is not None:
            spent = clock() - begun
            # At most twice as many as so far: the first pairs may have been cheaper than the ones to come.
            size = min(int(MARGIN * (seconds - spent) / max(spent / found.reached, 1e-9)), 2 * found.reached)
    if found.reached < len(ids):
        found.notes.append(f"reranked {found.reached} of {len(ids)} within {seconds:g} s")
    return found


def _score(
    reranker: PairScorer, query: Item, instruction: str | None, ids: Sequence[str], open_item: Callable[[str], Item], found: Reranked
) -> None:
    """One call; if something in it cannot be read, everything in it alone, so that one broken file costs itself only."""
    from umr.rendering.pairs import Pair

    items = _opened(ids, open_item, found)
    if not items:
        return
    try:
        scores = reranker.score_pairs([Pair(query, instruction, item) for item in items.values()])
        found.yes.update(zip(items, map(float, scores), strict=True))
    except (MediaError, RenderError) as error:
        if len(items) == 1:
            found.notes.append(_passed_over(next(iter(items)), error))
            return
        for id, item in items.items():
            _score(reranker, query, instruction, [id], lambda _, item=item: item, found)  # type: ignore[misc]


def _opened(ids: Sequence[str], open_item: Callable[[str], Item], found: Reranked) -> dict[str, Item]:
    """Those that can be opened, several at a time: a page of a PDF is drawn by a process of its own, which takes a while to start."""

    def attempt(id: str) -> Item | MediaError:
        try:
            return open_item(id)
        except MediaError as error:
            return error

    with ThreadPoolExecutor(OPENERS) as pool:
        opened = dict(zip(ids, pool.map(attempt, ids), strict=True))
    found.notes += [_passed_over(id, one) for id, one in opened.items() if isinstance(one, MediaError)]
    return {id: one for id, one in opened.items() if not isinstance(one, MediaError)}


def _passed_over(id: str, error: Exception) -> str:
    return f"{id}: not reranked, {error}"
