"""`scenes` (caption <-> picture) and `twins` (picture -> picture of the same scene)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from math import ceil

from umr.data.world.book import WORDS_STREAM, Another, Book, World, others, round_robin
from umr.data.world.draw import Picture
from umr.data.world.random_stream import Stream
from umr.data.world.registry import Registry
from umr.data.world.scene import Scene, alter, draw_until, kinds_differ, place, random_kinds, random_scene
from umr.data.world.settings import SPLITS, Split
from umr.data.world.truth import Claim, View, holds, things_of, view_of
from umr.data.world.wording import Caption, by_position, describe

FAMILY = 6
"""Pictures of a family: one and five that differ from it in one attribute of one thing."""

_CAPTIONS = 2  # captions of a picture in the image -> text direction


def plan_scenes(world: World) -> None:
    """Plan `scenes_task0` and `scenes_task3`, which share their pictures."""
    book = world.book("scenes")
    families: dict[Split, list[list[Scene]]] = {}
    for split in SPLITS:
        stream = book.stream(split)
        wanted = ceil(world.scale.room("scenes_task0", split) / FAMILY)
        families[split] = [_scene_family(stream, world.scenes) for _ in range(wanted)]
    pools: tuple[tuple[Split, ...], ...] = (("train",), ("val", "test"))
    for splits in pools:
        shown = _Shown(scene for split in splits for family in families[split] for scene in family)
        for split in splits:
            _write_scenes(book, split, families[split], shown)


def _write_scenes(book: Book, split: Split, families: list[list[Scene]], shown: _Shown) -> None:
    scale = book.world.scale
    stream = book.stream(split, WORDS_STREAM)
    paths = [[book.draw(split, Picture("scenes", scene)) for scene in family] for family in families]
    dids = [
        [book.candidate("scenes_task0", split, None, paths[f][m], view=view_of(scene)) for m, scene in enumerate(family)]
        for f, family in enumerate(families)
    ]
    for f, m in round_robin(len(families), FAMILY, scale.queries("scenes_task0", split)):
        caption = shown.caption(stream, families[f][m])
        book.query("scenes_task0", split, caption.text, None, [dids[f][m]], others(dids[f], m), claims=caption.claims)

    described = min(len(families), ceil(scale.room("scenes_task3", split) / FAMILY / (1 if split == "train" else _CAPTIONS)))
    texts: list[list[list[str]]] = []
    for family in families[:described]:
        texts.append([])
        for scene in family:
            first = shown.caption(stream, scene)
            captions = [first, _another(stream, scene, first)]
            again = partial(_captioned_again, scene)
            texts[-1].append([book.candidate("scenes_task3", split, c.text, None, claims=c.claims, another=again) for c in captions])
    for f, m in round_robin(described, FAMILY, scale.queries("scenes_task3", split)):
        negatives = [did for i, own in enumerate(texts[f]) if i != m for did in own]
        book.query("scenes_task3", split, None, paths[f][m], texts[f][m], negatives, view=view_of(families[f][m]))


def _captioned_again(scene: Scene, stream: Stream) -> Another:
    caption = by_position(stream, scene)
    return Another(caption.text, None, caption.claims)


def _another(stream: Stream, scene: Scene, first: Caption) -> Caption:
    """A list of positions that is worded differently from `first`."""
    return draw_until(lambda: caption if (caption := by_position(stream, scene)).text != first.text else None)


def _scene_family(stream: Stream, registry: Registry) -> list[Scene]:
    def make() -> list[Scene] | None:
        base = _repeating_scene(stream) if stream.chance(0.2) else random_scene(stream, 2 if stream.chance(0.6) else 3)
        family = [base, *(alter(stream, base) for _ in range(FAMILY - 1))]
        return family if registry.claim(family, closed=True) else None

    return draw_until(make)


def _repeating_scene(stream: Stream) -> Scene:
    """Two or three things of one kind, or two and a third of another."""
    first, second = random_kinds(stream, 2)
    return place(stream, stream.pick(([first, first], [first, first, first], [first, first, second])))


class _Shown:
    """The pictures of a pool, to see whether a caption is true of one only."""

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self._views: dict[str, list[View]] = defaultdict(list)
        for scene in scenes:
            view = view_of(scene)
            for name in sorted({thing.kind.name for thing in scene}):
                self._views[name].append(view)

    def caption(self, stream: Stream, scene: Scene) -> Caption:
        """A caption that is true of this picture alone; a full list of positions always is, by the registry."""
        caption = describe(stream, scene)
        listed = caption.claims[0][0] == "at"
        return caption if listed or self._is_of_one(caption.claims) else by_position(stream, scene)

    def _is_of_one(self, claims: tuple[Claim, ...]) -> bool:
        views = min((self._views[name] for name in _names(claims)), key=len)
        return len(list(islice((view for view in views if holds(claims, view)), 2))) == 1


def _names(claims: tuple[Claim, ...]) -> list[str]:
    """Names of the things that relations and counts are about."""
    return [part for claim in claims for part in claim[1:] if isinstance(part, str)]


def plan_twins(world: World) -> None:
    """Plan `twins_task4`: each query is drawn anew; one family in three has two right answers for its first member."""
    book = world.book("twins")
    for split in SPLITS:
        stream = book.stream(split)
        families = [distinct_family(stream, world.scenes, alter) for _ in range(ceil(world.scale.room("twins_task4", split) / FAMILY))]
        dids: list[list[list[str]]] = []
        for f, family in enumerate(families):
            copies = [2 if f % 3 == 0 and m == 0 else 1 for m in range(FAMILY)]
            dids.append([[_twin(book, split, scene) for _ in range(n)] for scene, n in zip(family, copies, strict=True)])
        for f, m in round_robin(len(families), FAMILY, world.scale.queries("twins_task4", split)):
            path = book.draw(split, Picture("twins", families[f][m]))
            negatives = [did for i, own in enumerate(dids[f]) if i != m for did in own]
            claims = [["same", things_of(families[f][m])]]
            book.query("twins_task4", split, None, path, dids[f][m], negatives, claims=claims)


def _twin(book: Book, split: Split, scene: Scene) -> str:
    path = book.draw(split, Picture("twins", scene))
    return book.candidate("twins_task4", split, None, path, view=view_of(scene))


def distinct_family(stream: Stream, registry: Registry, change: Callable[[Stream, Scene], Scene]) -> list[Scene]:
    """A scene of two or three kinds and five changed ones, all unused so far."""

    def make() -> list[Scene] | None:
        base = random_scene(stream, 2 if stream.chance(0.5) else 3)
        family = [base, *(change(stream, base) for _ in range(FAMILY - 1))]
        return family if all(map(kinds_differ, family)) and registry.claim(family) else None

    return draw_until(make)


def random_picture_scene(stream: Stream) -> Scene:
    """A scene of one to three things, kinds repeating now and then, for the pre-training sets."""
    if stream.chance(0.2):
        return _repeating_scene(stream)
    return random_scene(stream, stream.pick((1, 2, 2, 3)))
