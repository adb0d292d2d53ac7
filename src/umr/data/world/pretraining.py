"""The two sets for the earlier training stages: text pairs with a contradiction each, and captioned pictures."""

from __future__ import annotations

from collections.abc import Callable

from umr.data.world.book import FILES_PER_FOLDER, MEDIA_STREAM, Job, World
from umr.data.world.draw import Picture
from umr.data.world.everyday import random_picture_scene
from umr.data.world.film import alter_clip, clip_key, describe_clip, random_clip
from umr.data.world.random_stream import Stream
from umr.data.world.scene import Scene, alter, draw_until
from umr.data.world.settings import DATASETS
from umr.data.world.shop import alter_product, describe, product_picture, random_product
from umr.data.world.truth import holds, view_of
from umr.data.world.wording import by_position, by_relation
from umr.data.world.wording import describe as describe_scene

CAPTIONS_FOLDER = "captions"
_TEXT_PAIRS, _CAPTIONS = len(DATASETS), len(DATASETS) + 1  # their numbers in the keys of streams
_STYLES = ("scenes", "scenes", "twins", "edits", "moves", "field", "guide", "news", "clips")


def plan_text_pairs(world: World) -> list[tuple[str, str, str]]:
    """Rows (statement, what follows from it, what contradicts it), each about something that no other set shows."""
    stream = world.stream(_TEXT_PAIRS, 0)
    makers = (_scene_row, _scene_row, _scene_row, _product_row, _clip_row)
    return [draw_until(lambda: stream.pick(makers)(stream, world)) for _ in range(world.scale.text_pairs)]


def plan_captions(world: World) -> list[tuple[str, str]]:
    """Rows (path below the captions folder, text), two a picture; orders the pictures."""
    stream = world.stream(_CAPTIONS, 0)
    rows = []
    for index in range(world.scale.captions):
        picture, texts = draw_until(lambda: _captioned_picture(stream, world))
        suffix = "png" if index % 4 == 3 else "jpg"
        path = f"images/{index // FILES_PER_FOLDER:03d}/caption_{index:06d}.{suffix}"
        world.jobs.append(Job(f"{CAPTIONS_FOLDER}/{path}", picture, (world.seed, _CAPTIONS, 0, index, MEDIA_STREAM)))
        rows += [(path, text) for text in texts]
    return rows


def _captioned_picture(stream: Stream, world: World) -> tuple[Picture, tuple[str, str]] | None:
    if stream.chance(0.15):
        product = random_product(stream, world.scale.brands)
        if not world.registry("products").claim([(product,)]):
            return None
        return product_picture(stream, product), _two(lambda: describe(stream, product))
    scene = random_picture_scene(stream)
    if not world.scenes.claim([scene]) and len(scene) > 1:
        return None
    return Picture(stream.pick(_STYLES), scene), _two(lambda: describe_scene(stream, scene).text)


def _two(say: Callable[[], str]) -> tuple[str, str]:
    """Two different wordings."""
    first = say()
    return first, draw_until(lambda: text if (text := say()) != first else None)


def _scene_row(stream: Stream, world: World) -> tuple[str, str, str] | None:
    scene = random_picture_scene(stream)
    if not world.scenes.claim([scene]) and len(scene) > 1:
        return None
    changed = alter(stream, scene)
    follows = _true_statement(stream, scene)
    against = describe_scene(stream, changed)
    statement = by_position(stream, scene).text
    if holds(against.claims, view_of(scene)) or follows == statement:
        return None
    return statement, follows, against.text


def _true_statement(stream: Stream, scene: Scene) -> str:
    """Something that a scene's full description entails: another wording, a relation, a count, or a part of it."""
    form = stream.below(4)
    if form == 0 and len(scene) > 1:
        return by_position(stream, tuple(stream.sample(scene, len(scene) - 1))).text
    if form == 1 and (caption := by_relation(stream, scene)) is not None:
        return caption.text
    return describe_scene(stream, scene).text


def _product_row(stream: Stream, world: World) -> tuple[str, str, str] | None:
    product = random_product(stream, world.scale.brands)
    if not world.registry("products").claim([(product,)]):
        return None
    changed = alter_product(stream, product, world.scale.brands)
    return (*_two(lambda: describe(stream, product)), describe(stream, changed))


def _clip_row(stream: Stream, world: World) -> tuple[str, str, str] | None:
    clip = random_clip(stream, world.scale.alone)
    if not world.registry("acts").claim([clip_key(clip)]):
        return None
    changed = alter_clip(stream, clip, stream.pick(("motion", "kind", "place")))
    if clip.still is not None and clip.still.cell in changed.act.cells:
        return None
    return (*_two(lambda: describe_clip(stream, clip)), describe_clip(stream, changed))
