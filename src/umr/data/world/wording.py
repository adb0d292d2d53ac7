"""Scenes in words: several patterns and a few synonyms, over a small vocabulary.

No text begins with a colour, a number or a name: a reader may upper-case the first letter, and many tokenizers split the
first word of a text otherwise than the same word further on.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from umr.data.world.random_stream import Stream
from umr.data.world.scene import CELLS, Kind, Scene, Thing
from umr.data.world.truth import RELATIONS, Claim, related

SYNONYMS = {"circle": "disc", "square": "box", "ring": "hoop", "cross": "plus"}
NUMBERS = ("no", "one", "two", "three", "four")

_RELATION_WORDS = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "higher than"),
    "below": ("below", "lower than"),
}


@dataclass(frozen=True)
class Caption:
    """A text and the claims it makes."""

    text: str
    claims: tuple[Claim, ...]


def shape_word(stream: Stream, shape: str, plural: bool = False) -> str:
    """The shape's name or, one time in five, its synonym."""
    word = SYNONYMS[shape] if shape in SYNONYMS and stream.chance(0.2) else shape
    if not plural:
        return word
    return word + ("es" if word[-1] in "sx" else "s")


def kind_words(stream: Stream, kind: Kind, plural: bool = False) -> str:
    """A kind without article: `"striped red disc"`."""
    return " ".join(filter(None, (kind.texture, kind.colour, shape_word(stream, kind.shape, plural))))


def a_kind(stream: Stream, kind: Kind) -> str:
    """A kind with its article: `"an orange box"`."""
    words = kind_words(stream, kind)
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def join(phrases: list[str]) -> str:
    """`"a, b and c"`."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def by_position(stream: Stream, scene: Scene) -> Caption:
    """List every thing with its cell, in random order."""
    things = stream.sample(scene, len(scene))
    pattern = stream.below(4)
    if pattern == 0:
        text = join([f"{a_kind(stream, thing.kind)} in the {CELLS[thing.cell]}" for thing in things])
    elif pattern == 1:
        text = "there is " + join([f"{a_kind(stream, thing.kind)} at the {CELLS[thing.cell]}" for thing in things])
    elif pattern == 2:
        text = "we see: " + ", ".join(f"{kind_words(stream, thing.kind)} {CELLS[thing.cell]}" for thing in things)
    else:
        text = join([f"in the {CELLS[thing.cell]} {a_kind(stream, thing.kind)}" for thing in things])
    return Caption(text, tuple(_at(thing) for thing in things))


def by_relation(stream: Stream, scene: Scene) -> Caption | None:
    """Relate two things of the scene and leave their cells open; `None` for a single thing."""
    if len(scene) < 2:
        return None
    first, second = stream.sample(scene, 2)
    relation = stream.pick([name for name in RELATIONS if related(name, first.cell, second.cell)])
    words = stream.pick(_RELATION_WORDS[relation])
    a, b = a_kind(stream, first.kind), a_kind(stream, second.kind)
    text = stream.pick((f"{a} {words} {b}", f"{a} is {words} {b}", f"there is {a} {words} {b}"))
    return Caption(text, ([relation, first.kind.name, second.kind.name],))


def by_count(stream: Stream, scene: Scene) -> Caption:
    """Count the things of each kind and leave their cells open."""
    counts = Counter(thing.kind for thing in scene)
    kinds = stream.sample(sorted(counts), len(counts))
    phrases = [f"{NUMBERS[counts[kind]]} {kind_words(stream, kind, plural=counts[kind] > 1)}" for kind in kinds]
    text = stream.pick(("just {}", "there are {}", "a picture of {}")).format(join(phrases))
    return Caption(text, tuple(["count", kind.name, counts[kind]] for kind in kinds))


def describe(stream: Stream, scene: Scene) -> Caption:
    """A caption of any form that fits the scene: mostly positions, sometimes relations, counts where a kind repeats."""
    if len({thing.kind for thing in scene}) < len(scene) and stream.chance(0.6):
        return by_count(stream, scene)
    caption = by_relation(stream, scene) if stream.chance(0.2) else None
    return caption or by_position(stream, scene)


def _at(thing: Thing) -> Claim:
    return ["at", thing.kind.name, CELLS[thing.cell]]
