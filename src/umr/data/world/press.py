"""`news`: a headline names the things, the place and the day; the answer is a photo with a caption (text -> image,text)."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from umr.data.world.book import Another, Book, World, others, round_robin
from umr.data.world.draw import Picture
from umr.data.world.names import DAYS, PLACES
from umr.data.world.random_stream import Stream
from umr.data.world.registry import Key, Registry
from umr.data.world.scene import Scene, alter_kind, draw_until, kinds_differ, place, random_scene, scene_of
from umr.data.world.settings import SPLITS, Split
from umr.data.world.truth import Claim, tag, view_of
from umr.data.world.wording import a_kind, join

FAMILY = 4
"""An event; one with another thing; one at another place; one on another day."""

_CAPTIONS = ("Photo from {p}, taken on {d}.", "Seen in {p} on {d}.", "This picture was taken on {d} in {p}.")


class Event(NamedTuple):
    """What was seen where and when."""

    scene: Scene
    place: str
    day: str

    @property
    def key(self) -> Key:
        """Things (not their cells), place and day: what a headline says."""
        kinds = sorted(thing.kind.name for thing in self.scene)
        return (f"day {self.day}", f"place {self.place}", *(f"thing {name}" for name in kinds))


def plan_news(world: World) -> None:
    """Plan `news_task2`."""
    book, setting = world.book("news"), "news_task2"
    events = world.registry("events")
    for split in SPLITS:
        stream = book.stream(split)
        families = [_family(stream, world.scenes, events) for _ in range(ceil(world.scale.room(setting, split) / FAMILY))]
        dids = [[_photo(book, split, stream, event) for event in family] for family in families]
        for f, m in round_robin(len(families), FAMILY, world.scale.queries(setting, split)):
            event = families[f][m]
            claims: list[Claim] = [["count", thing.kind.name, 1] for thing in event.scene]
            claims += [tag("place", event.place), tag("day", event.day)]
            book.query(setting, split, _headline(stream, event), None, [dids[f][m]], others(dids[f], m), claims=claims)


def _photo(book: Book, split: Split, stream: Stream, event: Event) -> str:
    picture = Picture("news", event.scene)

    def another(stream: Stream) -> Another:
        return Another(stream.pick(_CAPTIONS).format(p=event.place, d=event.day), picture)

    text, path = another(stream).text, book.draw(split, picture)
    view = view_of(event.scene, place=event.place, day=event.day)
    return book.candidate("news_task2", split, text, path, view=view, another=another)


def _headline(stream: Stream, event: Event) -> str:
    things = [a_kind(stream, thing.kind) for thing in stream.sample(event.scene, len(event.scene))]
    crowd, where, when = join(things), f"in {event.place}", f"on {event.day}"
    return stream.pick(
        (
            f"{crowd} seen {where} {when}",
            f"{crowd} came together {when} {where}",
            f"news {when} {where}: {crowd}",
            f"{where} {when}: {crowd} met",
        )
    )


def _family(stream: Stream, scenes: Registry, events: Registry) -> list[Event]:
    def make() -> list[Event] | None:
        base = Event(random_scene(stream, 2 if stream.chance(0.6) else 3), stream.pick(PLACES), stream.pick(DAYS))
        kinds = [thing.kind for thing in base.scene]
        family = [
            base,
            base._replace(scene=_with_other_kind(stream, base.scene)),
            base._replace(scene=place(stream, kinds), place=stream.other(PLACES, base.place)),
            base._replace(scene=place(stream, kinds), day=stream.other(DAYS, base.day)),
        ]
        if not all(kinds_differ(event.scene) for event in family):
            return None
        if not events.claim([tuple(sorted(event.key)) for event in family], closed=True):
            return None
        return family if scenes.claim([event.scene for event in family]) else None

    return draw_until(make)


def _with_other_kind(stream: Stream, scene: Scene) -> Scene:
    things = list(scene)
    i = stream.below(len(things))
    things[i] = things[i]._replace(kind=alter_kind(stream, things[i].kind))
    return scene_of(things)
