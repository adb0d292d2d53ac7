"""`facts`: questions about made-up people, answered by a passage (text -> text) or a named portrait (text -> image,text)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from umr.data.world.book import Another, Book, World, others, round_robin
from umr.data.world.draw import Picture
from umr.data.world.names import people
from umr.data.world.random_stream import Stream
from umr.data.world.registry import Registry
from umr.data.world.scene import CENTER, Kind, Scene, Thing, draw_until, random_kind
from umr.data.world.settings import SPLITS, Split
from umr.data.world.truth import tag, view_of
from umr.data.world.wording import a_kind, kind_words

FAMILY = 4
"""Two given names with two family names: four people whose names are half alike."""


@dataclass(frozen=True)
class Topic:
    """A fact that people have: ways to ask for it, ways to state it, and its possible values."""

    questions: tuple[str, ...]
    passages: tuple[str, ...]
    values: tuple[str, ...]


TOPICS = {
    "home": Topic(
        ("Where does {n} live?", "What is the home of {n}?", "In which place does {n} live?"),
        ("We know that {n} lives in the {v}.", "The home of {n} is in the {v}."),
        ("forest", "desert", "harbor", "valley", "castle", "village", "tower", "swamp"),
    ),
    "food": Topic(
        ("What does {n} eat?", "What is the food of {n}?", "Which food does {n} like?"),
        ("We know that {n} eats {v}.", "The food of {n} is {v}."),
        ("bread", "soup", "apples", "rice", "cheese", "nuts", "beans", "cake"),
    ),
    "work": Topic(
        ("What is the work of {n}?", "What does {n} do for work?", "Which job does {n} have?"),
        ("We know that {n} works as a {v}.", "The work of {n} is that of a {v}."),
        ("baker", "sailor", "painter", "teacher", "farmer", "doctor", "singer", "smith"),
    ),
    "pet": Topic(
        ("Which pet does {n} keep?", "What is the pet of {n}?", "Which animal does {n} own?"),
        ("We know that {n} keeps a {v}.", "The pet of {n} is a {v}."),
        ("cat", "dog", "horse", "parrot", "turtle", "rabbit", "goat", "snail"),
    ),
    "drink": Topic(
        ("What does {n} drink?", "What is the drink of {n}?", "Which drink does {n} like?"),
        ("We know that {n} drinks {v}.", "The drink of {n} is {v}."),
        ("tea", "milk", "water", "juice", "coffee", "cocoa", "cider", "lemonade"),
    ),
    "music": Topic(
        ("What does {n} play?", "What is the instrument of {n}?", "Which instrument does {n} play?"),
        ("We know that {n} plays the {v}.", "The instrument of {n} is the {v}."),
        ("flute", "drum", "violin", "piano", "harp", "trumpet", "guitar", "horn"),
    ),
}

_PORTRAIT_TEXTS = ("This is {n}.", "A portrait of {n}.", "The picture shows {n}.")


@dataclass(frozen=True)
class Person:
    """A name and a look: a big kind in the middle with a small thing beside it."""

    name: str
    big: Kind
    badge: Thing


def plan_facts(world: World) -> None:
    """Plan `facts_task1` and `facts_task2`, whose people are partly the same; none is in two splits."""
    book = world.book("facts")
    names, looks = world.registry("names"), world.registry("looks")
    for split in SPLITS:
        stream = book.stream(split)
        n_told = ceil(world.scale.room("facts_task1", split) / FAMILY / len(TOPICS))
        n_shown = ceil(world.scale.room("facts_task2", split) / FAMILY)
        families = [_family(stream, names, looks, world.scale.names) for _ in range(max(n_told, n_shown))]
        _write_passages(book, split, stream, families[:n_told])
        _write_portraits(book, split, stream, families[:n_shown])


def ask(stream: Stream, name: str, topic: str) -> str:
    """A question for a person's fact."""
    return stream.pick(TOPICS[topic].questions).format(n=name)


def _write_passages(book: Book, split: Split, stream: Stream, families: list[list[Person]]) -> None:
    setting, topics = "facts_task1", tuple(TOPICS)
    units: list[list[tuple[Person, str]]] = [[(person, topic) for person in family for topic in topics] for family in families]
    dids = [[_tell(book, split, stream, person.name, topic) for person, topic in unit] for unit in units]
    for f, m in round_robin(len(families), FAMILY * len(topics), book.world.scale.queries(setting, split)):
        person, topic = units[f][m]
        same = [did for did, (p, t) in zip(dids[f], units[f], strict=True) if (p is person) != (t == topic)]
        claims = [tag("name", person.name), tag("topic", topic)]
        book.query(setting, split, ask(stream, person.name, topic), None, [dids[f][m]], stream.sample(same, 4), claims=claims)


def _tell(book: Book, split: Split, stream: Stream, name: str, topic: str) -> str:
    """Add a passage that states some value of a person's fact."""
    passage, value = stream.pick(TOPICS[topic].passages), stream.pick(TOPICS[topic].values)

    def another(stream: Stream) -> Another:
        return Another(stream.pick(TOPICS[topic].passages).format(n=name, v=value), None)

    text, view = passage.format(n=name, v=value), view_of((), name=name, topic=topic)
    return book.candidate("facts_task1", split, text, None, view=view, another=another)


def _write_portraits(book: Book, split: Split, stream: Stream, families: list[list[Person]]) -> None:
    setting = "facts_task2"
    dids = [[_portray(book, split, stream, person) for person in family] for family in families]
    for f, m in round_robin(len(families), FAMILY, book.world.scale.queries(setting, split)):
        person = families[f][m]
        claims = [tag("name", person.name)]
        book.query(setting, split, _portrait_question(stream, person), None, [dids[f][m]], others(dids[f], m), claims=claims)


def _portray(book: Book, split: Split, stream: Stream, person: Person) -> str:
    picture = Picture("facts", (person.badge,), big=person.big)

    def another(stream: Stream) -> Another:
        return Another(stream.pick(_PORTRAIT_TEXTS).format(n=person.name), picture)

    text, path = another(stream).text, book.draw(split, picture)
    view = view_of((person.badge,), name=person.name, big=person.big.name)
    return book.candidate("facts_task2", split, text, path, view=view, another=another)


def _portrait_question(stream: Stream, person: Person) -> str:
    return stream.pick(
        (
            f"What does {person.name} look like?",
            f"How does {person.name} look?",
            f"Is {person.name} {a_kind(stream, person.big)}?",
            f"Where is {person.name} shown, the {kind_words(stream, person.big)}?",
        )
    )


def _family(stream: Stream, names: Registry, looks: Registry, n_names: int) -> list[Person]:
    def make() -> list[Person] | None:
        given, family = (stream.sample(pool, 2) for pool in people(n_names))
        full = [f"{g} {f}" for g in given for f in family]
        faces = [_look(stream) for _ in range(FAMILY)]
        if not looks.claim([tuple(face) for face in faces]):
            return None
        if not names.claim([(name,) for name in full]):
            return None
        return [Person(name, face[0].kind, face[1]) for name, face in zip(full, faces, strict=True)]

    return draw_until(make)


def _look(stream: Stream) -> Scene:
    big = Thing(CENTER, random_kind(stream, textured=True))
    badge = Thing(stream.other(range(9), CENTER), random_kind(stream))
    return (big, badge)
