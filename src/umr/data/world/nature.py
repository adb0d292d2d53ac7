"""`field`: a picture of creatures and a question about them; neither alone says which field guide entry answers.

An entry is about two creatures and one topic. Pictures show the two, or three of which the question points out two by
their places.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import TypeAlias

from umr.data.world.book import Another, Book, World, round_robin
from umr.data.world.draw import Picture
from umr.data.world.random_stream import Stream
from umr.data.world.registry import Registry
from umr.data.world.scene import COLUMNS, ROWS, Kind, Scene, Thing, alter_kind, draw_until, place, random_kinds, scene_of
from umr.data.world.settings import SPLITS, Split
from umr.data.world.truth import Claim, tag, view_of
from umr.data.world.wording import kind_words

PAIRS = 3
"""Pairs of a family: those of three creatures, of which two are often nearly alike."""

_BOTH = (("they", "them"), ("these two", "these two"), ("both of them", "both of them"))
_LIKENESS = 0.7  # share of families with two creatures that differ in one attribute
_SELECTION = 0.35  # share of questions that point at two of three


_Pictured: TypeAlias = tuple[str, tuple[str, str]]
"""The path of a query picture, and the words for the pair in it, as subject and as object."""


@dataclass(frozen=True)
class Habit:
    """A topic of the guide: how to ask for it (`{w}` who, `{o}` whom), how an entry and a note state it (`{v}` what)."""

    questions: tuple[str, ...]
    entry: str
    note: str
    values: tuple[str, ...]


HABITS = {
    "food": Habit(("What do {w} eat?", "What is the food of {o}?"), "eat {v}", "They eat {v}.", ("moss", "seeds", "worms", "leaves")),
    "home": Habit(
        ("Where do {w} live?", "What is the home of {o}?"), "live in {v}", "They live in {v}.", ("caves", "trees", "ponds", "sand")
    ),
    "sleep": Habit(
        ("When do {w} sleep?", "What is the sleep time of {o}?"), "sleep at {v}", "They sleep at {v}.", ("night", "noon", "dawn", "dusk")
    ),
    "fear": Habit(("What do {w} fear?", "What scares {o}?"), "fear {v}", "They fear {v}.", ("fire", "rain", "wind", "snow")),
}


@dataclass(frozen=True)
class Entry:
    """Two of the three creatures of a family, and a topic."""

    pair: tuple[Kind, Kind]
    third: Kind
    habit: str
    value: str

    @property
    def tags(self) -> dict[str, str]:
        """Who and what the entry is about."""
        return {"pair": " + ".join(sorted(kind.name for kind in self.pair)), "habit": self.habit}


def plan_field(world: World) -> None:
    """Plan `field_task6` and `field_task8`; both ask about the same query pictures, as far as their numbers go."""
    book, scale = world.book("field"), world.scale
    members = PAIRS * len(HABITS)
    for split in SPLITS:
        stream = book.stream(split)
        sizes = {name: ceil(scale.room(name, split) / members) for name in ("field_task6", "field_task8")}
        families = [_family(stream, world.registry("pairs"), scale.textured_field) for _ in range(max(sizes.values()))]
        pictures: dict[tuple[int, int], _Pictured] = {}
        for name, n_families in sizes.items():
            dids = [[_candidate(book, name, split, stream, entry) for entry in family] for family in families[:n_families]]
            for f, m in round_robin(n_families, members, scale.queries(name, split)):
                if (f, m) not in pictures:
                    pictures[f, m] = _pictured(book, split, stream, families[f][m])
                _ask(book, name, split, stream, pictures[f, m], families[f], dids[f], m)


def _pictured(book: Book, split: Split, stream: Stream, entry: Entry) -> _Pictured:
    scene, words = draw_until(lambda: _pose(stream, entry, book.world.scenes))
    return book.draw(split, Picture("field", scene)), words


def _ask(book: Book, name: str, split: Split, stream: Stream, picture: _Pictured, family: list[Entry], dids: list[str], index: int) -> None:
    entry, (path, (subject, whom)) = family[index], picture
    text = stream.pick(HABITS[entry.habit].questions).format(w=subject, o=whom)
    near = [did for did, e in zip(dids, family, strict=True) if (e.pair == entry.pair) != (e.habit == entry.habit)]
    claims: list[Claim] = [tag(key, value) for key, value in entry.tags.items()]
    book.query(name, split, text, path, [dids[index]], stream.sample(near, 4), claims=claims)


def _family(stream: Stream, pairs: Registry, textured: bool) -> list[Entry]:
    def make() -> list[Entry] | None:
        first, second, other = random_kinds(stream, 3, textured)
        trio = [first, alter_kind(stream, first) if stream.chance(_LIKENESS) else second, other]
        couples = [tuple(sorted(couple)) for couple in combinations(trio, 2)]
        return None if len(set(trio)) < 3 or not pairs.claim(couples) else _entries(stream, trio)

    return draw_until(make)


def _entries(stream: Stream, trio: list[Kind]) -> list[Entry]:
    """All pairs with all topics, pairs changing fastest, so that the first queries of families spread over both."""
    entries = []
    habits = stream.sample(tuple(HABITS), len(HABITS))
    for step in range(PAIRS * len(habits)):
        left_out, habit = step % PAIRS, habits[step % len(habits)]  # 3 and 4 share no divisor: all twelve
        rest = [kind for i, kind in enumerate(trio) if i != left_out]
        entries.append(Entry((rest[0], rest[1]), trio[left_out], habit, stream.pick(HABITS[habit].values)))
    return entries


def _pose(stream: Stream, entry: Entry, scenes: Registry) -> tuple[Scene, tuple[str, str]] | None:
    """An unused picture, and the words for the pair in it, as subject and as object."""
    if not stream.chance(_SELECTION):
        scene = place(stream, entry.pair)
        return (scene, stream.pick(_BOTH)) if scenes.claim([scene]) else None
    # One creature a column (or row), so that "the left and the right one" is clear.
    lanes = stream.sample(range(3), 3)
    sideways = stream.chance(0.5)
    kinds = (*entry.pair, entry.third)
    scene = scene_of([Thing(3 * stream.below(3) + k if sideways else 3 * k + stream.below(3), kinds[i]) for i, k in enumerate(lanes)])
    if not scenes.claim([scene]):
        return None
    first, second = sorted(lanes[:2])
    words = COLUMNS if sideways else ROWS
    who = f"the {words[first]} and the {words[second]} one"
    return scene, (who, who)


def _candidate(book: Book, name: str, split: Split, stream: Stream, entry: Entry) -> str:
    first, second = stream.sample(entry.pair, 2)
    if name == "field_task6":

        def another(stream: Stream) -> Another:
            return Another(_passage(stream, entry, *stream.sample(entry.pair, 2)), None)

        return book.candidate(name, split, _passage(stream, entry, first, second), None, view=view_of((), **entry.tags), another=another)
    scene = draw_until(lambda: _unused(stream, entry, book.world.scenes))
    path = book.draw(split, Picture("guide", scene))
    return book.candidate(name, split, HABITS[entry.habit].note.format(v=entry.value), path, view=view_of(scene, **entry.tags))


def _passage(stream: Stream, entry: Entry, first: Kind, second: Kind) -> str:
    a, b = kind_words(stream, first), kind_words(stream, second)
    says = HABITS[entry.habit].entry.format(v=entry.value)
    return stream.pick(("The {a} and the {b} both {e}.", "Guide: the {a} and the {b} {e}.")).format(a=a, b=b, e=says)


def _unused(stream: Stream, entry: Entry, scenes: Registry) -> Scene | None:
    scene = place(stream, entry.pair)
    return scene if scenes.claim([scene]) else None
