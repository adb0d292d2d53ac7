"""Visits and questions about them in words; what is told and asked is decided in `households`."""

from __future__ import annotations

from collections.abc import Callable

from umr.data.world.households import LACKING, YARD, Condition, Told, Visit
from umr.data.world.random_stream import Stream
from umr.data.world.scene import Kind
from umr.data.world.wording import NUMBERS, a_kind, kind_words


def tell(stream: Stream, visit: Visit, told: Told) -> str:
    """A report that tells these parts, in any order after the opening."""
    first, second = stream.sample(visit.people, 2)
    opening = stream.pick(("This is the house of {} and {}.", "We see the home of {} and {}.", "Here {} lives with {}."))
    parts: list[Callable[[], str]] = []
    for name in (part for part in visit.people if part in told):
        parts.append(lambda name=name: _person(stream, name, visit))  # type: ignore[misc]
    if YARD in told:
        parts.append(lambda: _yard(stream, visit))
    if LACKING in told:
        parts.append(lambda: stream.pick(("There is no {}.", "We see no {}.")).format(kind_words(stream, visit.lacking)))
    return " ".join([opening.format(first, second), *(say() for say in stream.sample(parts, len(parts)))])


def ask(stream: Stream, conditions: tuple[Condition, ...], people: tuple[str, str]) -> str:
    """A question with all conditions in any order; where none of them names a person, the house is named by one."""
    phrases = [_phrase(stream, one) for one in stream.sample(conditions, len(conditions))]
    where = "" if any(one.who for one in conditions) else f" at the house of {stream.pick(people)}"
    said = f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return stream.pick(("When{w} is it so that {s}?", "Which visit{w} tells that {s}?", "On which day{w} do we see that {s}?")).format(
        w=where, s=said
    )


def _person(stream: Stream, name: str, visit: Visit) -> str:
    values = {"n": name, "p": visit.habits[name, "pet"], "d": visit.habits[name, "drink"]}
    return stream.pick(
        (
            "We know that {n} keeps a {p} and drinks {d}.",
            "The pet of {n} is a {p} and the drink is {d}.",
            "Here {n} drinks {d} and keeps a {p}.",
            "The drink of {n} is {d}, the pet a {p}.",
        )
    ).format(**values)


def _yard(stream: Stream, visit: Visit) -> str:
    things = [_number_of(stream, kind, number) for kind, number in stream.sample(list(visit.yard.items()), len(visit.yard))]
    return stream.pick(("In the yard we see {}.", "The yard has {}.", "There is a yard with {}.")).format(" and ".join(things))


def _number_of(stream: Stream, kind: Kind, number: int) -> str:
    return f"{NUMBERS[number]} {kind_words(stream, kind, plural=number > 1)}"


def _phrase(stream: Stream, condition: Condition) -> str:
    if condition.kind is not None:
        what = _number_of(stream, condition.kind, condition.number)
        if condition.number == 0 and stream.chance(0.5):
            return f"there is not {a_kind(stream, condition.kind)}"
        there = "there are" if condition.number > 1 else "there is"
        return stream.pick((f"{there} {{}}", "the yard has {}")).format(what)
    forms = {
        ("pet", True): ("{n} keeps a {v}", "the pet of {n} is a {v}"),
        ("pet", False): ("{n} does not keep a {v}", "the pet of {n} is not a {v}", "{n} keeps no {v}"),
        ("drink", True): ("{n} drinks {v}", "the drink of {n} is {v}"),
        ("drink", False): ("{n} does not drink {v}", "the drink of {n} is not {v}", "{n} drinks no {v}"),
    }
    return stream.pick(forms[condition.topic, condition.holds]).format(n=condition.who, v=condition.value)
