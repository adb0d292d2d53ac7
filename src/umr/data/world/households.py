"""Households: what the text-retrieval set tells and asks. Facts, what follows from them, and near-duplicates of them; no wording.

A family is two households of two people each, whose four names are made of two given and two family names, so that both
households have the same words for names. Each is visited on six days. Visits differ in a few things, often by an exchange that
leaves the words the same, and what is true on one day is true on others, too: only a conjunction tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from umr.data.world.names import DAYS
from umr.data.world.people import TOPICS
from umr.data.world.random_stream import Stream
from umr.data.world.scene import Kind, draw_until, random_kinds

VISITS = 6
CHANGES = (1, 2, 3)
"""Of the household's usual state, on one day."""
_TRIES = 40
HABITS = ("pet", "drink")
"""Topics that are told of every person."""
MOST = 4
"""Of one kind in a yard."""


@dataclass(frozen=True)
class Visit:
    """A household on one day.

    Attributes:
        people: their names.
        day: of the visit.
        habits: by person and topic, a value.
        yard: things in the yard, all of them: number by kind.
        lacking: a kind that is not there, and said not to be.
    """

    people: tuple[str, str]
    day: str
    habits: Mapping[tuple[str, str], str]
    yard: Mapping[Kind, int]
    lacking: Kind


class Condition(NamedTuple):
    """Something that a question asks for: of a person (`who`, `topic`, `value`, or not so), or of the yard (how many of a kind)."""

    who: str = ""
    topic: str = ""
    value: str = ""
    holds: bool = True
    kind: Kind | None = None
    number: int = 0

    @property
    def sort(self) -> str:
        """`"not"`, `"count"` or `"is"`."""
        return ("count" if self.number else "not") if self.kind is not None else ("is" if self.holds else "not")


Told: TypeAlias = frozenset[str]
"""Parts of a visit that a document tells: names of people, `YARD`, `LACKING`."""
YARD, LACKING = "the yard", "what is lacking"


def everything(visit: Visit) -> Told:
    """All parts of a visit."""
    return frozenset((*visit.people, YARD, LACKING))


def true_of(condition: Condition, visit: Visit, told: Told) -> bool | None:
    """Whether a document that tells these parts says so; `None` where it leaves that open."""
    if condition.kind is None:
        return None if condition.who not in told else (visit.habits[condition.who, condition.topic] == condition.value) == condition.holds
    if YARD in told:
        return visit.yard.get(condition.kind, 0) == condition.number
    return condition.number == 0 if LACKING in told and condition.kind == visit.lacking else None


def grade(conditions: tuple[Condition, ...], visit: Visit, told: Told) -> int:
    """How well a document answers: 2 where it says that all conditions hold, 1 where it says so of some and contradicts none."""
    found = [true_of(condition, visit, told) for condition in conditions]
    return 2 if all(found) else 1 if any(found) and False not in found else 0


@dataclass(frozen=True)
class Family:
    """Two households, their visits, and the questions about each."""

    visits: tuple[tuple[Visit, ...], ...]
    questions: dict[tuple[int, int], list[tuple[Condition, ...]]] = field(default_factory=dict)


def draw_family(stream: Stream, given: list[str], family: list[str], questions: int) -> Family:
    """Draw both households of four names, and questions about every visit.

    Args:
        stream: of the draws.
        given, family: two of each.
        questions: about a visit.
    """
    couples = ((f"{given[0]} {family[0]}", f"{given[1]} {family[1]}"), (f"{given[0]} {family[1]}", f"{given[1]} {family[0]}"))
    drawn = Family(())
    for house, couple in enumerate(couples):
        visits, asked = draw_until(lambda: _household(stream, couple, questions))  # noqa: B023
        drawn = Family((*drawn.visits, visits), drawn.questions | {(house, number): some for number, some in enumerate(asked)})
    return drawn


def _household(
    stream: Stream, people: tuple[str, str], questions: int
) -> tuple[tuple[Visit, ...], list[list[tuple[Condition, ...]]]] | None:
    """Visits, and for each so many questions, all different."""
    visits, asked = _visits(stream, people), []
    for visit in visits:
        found = _questions(stream, visit, [other for other in visits if other is not visit], questions)
        if len(found) < questions:
            return None
        asked.append(found)
    return visits, asked


def _visits(stream: Stream, people: tuple[str, str]) -> tuple[Visit, ...]:
    def make() -> tuple[Visit, ...] | None:
        days = stream.sample(DAYS, VISITS)
        habits = {}
        for topic in HABITS:
            for name, value in zip(people, stream.sample(TOPICS[topic].values, 2), strict=True):
                habits[name, topic] = value
        first, second, lacking = random_kinds(stream, 3)
        many, few = stream.sample(range(1, MOST + 1), 2)
        base = Visit(people, days[0], habits, {first: many, second: few}, lacking)
        visits = tuple(replace(_changed(stream, base), day=day) for day in days)
        facts = [(tuple(sorted(visit.habits.items())), tuple(sorted(visit.yard.items()))) for visit in visits]
        return visits if len(set(facts)) == VISITS else None

    return draw_until(make)


def _changed(stream: Stream, visit: Visit) -> Visit:
    for change in stream.sample(_CHANGES, stream.pick(CHANGES)):
        visit = change(stream, visit)
    return visit


def _exchange_pets(stream: Stream, visit: Visit) -> Visit:
    return _exchange(visit, "pet")


def _exchange_drinks(stream: Stream, visit: Visit) -> Visit:
    return _exchange(visit, "drink")


def _exchange(visit: Visit, topic: str) -> Visit:
    first, second = ((name, topic) for name in visit.people)
    return replace(visit, habits={**visit.habits, first: visit.habits[second], second: visit.habits[first]})


def _another_habit(stream: Stream, visit: Visit) -> Visit:
    key = stream.pick(sorted(visit.habits))
    return replace(visit, habits={**visit.habits, key: stream.other(TOPICS[key[1]].values, visit.habits[key])})


def _exchange_numbers(stream: Stream, visit: Visit) -> Visit:
    (first, many), (second, few) = visit.yard.items()
    return replace(visit, yard={first: few, second: many})


def _another_number(stream: Stream, visit: Visit) -> Visit:
    kind = stream.pick(sorted(visit.yard))
    return replace(visit, yard={**visit.yard, kind: stream.other(range(1, MOST + 1), visit.yard[kind])})


def _exchange_presence(stream: Stream, visit: Visit) -> Visit:
    """What was lacking is there, and something that was there is lacking."""
    kind = stream.pick(sorted(visit.yard))
    yard = {visit.lacking if one == kind else one: number for one, number in visit.yard.items()}
    return replace(visit, yard=yard, lacking=kind)


_CHANGES: tuple[Callable[[Stream, Visit], Visit], ...] = (
    _exchange_pets,
    _exchange_drinks,
    _another_habit,
    _exchange_numbers,
    _another_number,
    _exchange_presence,
)


def _questions(stream: Stream, visit: Visit, others: list[Visit], count: int) -> list[tuple[Condition, ...]]:
    """Sets of two or three conditions that hold together for this visit of the household only, none of which can be left out.

    Seldom all conditions are plain ones, without negation and number. Fewer than `count` come back where no more are found.
    """
    possible, told = _true_conditions(visit, others), everything(visit)
    everyone = (1 << len(others)) - 1
    excludes = {one: sum(1 << place for place, other in enumerate(others) if not true_of(one, other, told)) for one in possible}
    found: list[tuple[Condition, ...]] = []
    for _ in range(_TRIES):
        if len(found) == count:
            break
        chosen = tuple(stream.sample(possible, 2 + stream.below(2)))
        masks = [excludes[one] for one in chosen]
        plain = all(one.sort == "is" for one in chosen) and not stream.chance(0.3)
        fewer = (masks[:place] + masks[place + 1 :] for place in range(len(masks)))
        if not plain and _or(masks) == everyone and all(_or(some) != everyone for some in fewer) and set(chosen) not in map(set, found):
            found.append(chosen)
    return found


def _or(masks: list[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total


def _true_conditions(visit: Visit, others: list[Visit]) -> list[Condition]:
    """What can be asked about a visit; what it is not like is taken from the household's other visits."""
    found = [Condition(who, topic, value) for (who, topic), value in visit.habits.items()]
    found += [Condition(kind=kind, number=number) for kind, number in visit.yard.items()]
    unlike = {(key, other.habits[key]) for other in others for key in visit.habits if other.habits[key] != visit.habits[key]}
    found += [Condition(*key, value, holds=False) for key, value in sorted(unlike)]
    absent = {visit.lacking, *(kind for other in others for kind in other.yard)} - set(visit.yard)
    found += [Condition(kind=kind) for kind in sorted(absent)]
    return found
