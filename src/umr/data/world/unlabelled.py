"""Right answers in the training pool that no query lists, as training pools of real benchmarks have them.

For a share of the answers there are further candidates: the same thing drawn again, the same fact worded otherwise, or both.
A miner that takes the best ranked candidates for negatives without a filter meets them first. Val and test have none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from umr.data.world.book import ANOTHER_STREAM, Another, Book, World
from umr.data.world.random_stream import Stream
from umr.data.world.scene import draw_until
from umr.data.world.settings import SETTINGS, Split
from umr.data.world.truth import unlabelled_for

SHARE = 0.4
"""Share of the answers of a setting's train queries to which there are unlabelled ones."""

_NUMBERS = (1, 1, 1, 1, 1, 2, 2, 3)  # how many, all equally likely; 1.5 on average
_MOST = {"facts_task1": 1}  # a passage with a given value can be worded in two ways only
_TRAIN: Split = "train"


def plan_unlabelled(world: World) -> None:
    """Add unlabelled positives to the training pool; to be called last, so that all other records stay as they are."""
    streams = {name: book.stream(_TRAIN, ANOTHER_STREAM) for name, book in world.books.items()}
    for setting in SETTINGS:
        _plan_setting(world.books[setting.dataset], setting.name, streams[setting.dataset])


def count_unlabelled(book: Book, setting: str) -> int:
    """The number of a setting's unlabelled positives."""
    return sum(bool(unlabelled_for(candidate)) for candidate in book.candidates[setting, "train"])


def _plan_setting(book: Book, setting: str, stream: Stream) -> None:
    asked: dict[tuple[str, ...], list[str]] = {}
    for query in book.queries[setting, _TRAIN]:
        asked.setdefault(tuple(query["pos_cand_list"]), []).append(query["qid"])
    labelled = {candidate["did"]: candidate for candidate in book.candidates[setting, "train"]}
    for dids in stream.sample(list(asked), round(SHARE * len(asked))):
        source = json.loads(labelled[dids[0]]["src_content"])
        said = {labelled[did]["txt"] for did in dids}
        for _ in range(min(stream.pick(_NUMBERS), _MOST.get(setting, max(_NUMBERS)))):
            text, content, claims = draw_until(partial(_unsaid, book.another[dids[0]], stream, said))
            said.add(text)
            path = None if content is None else book.draw(_TRAIN, content)
            claims = claims or source.get("claims")
            book.candidate(setting, _TRAIN, text, path, view=source.get("view"), claims=claims, unlabelled_for=asked[dids])


def _unsaid(make: Callable[[Stream], Another], stream: Stream, said: set[str | None]) -> Another | None:
    """A text alone must not be said twice; one beside a picture may be, for that is drawn anew."""
    another = make(stream)
    return None if another.content is None and another.text in said else another
