"""`edits` and `moves`: a picture and a change asked for in words lead to the changed picture (image,text -> image).

The given picture is itself in the pool, the hardest distractor of all, as in CIRR.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from umr.data.world.book import Book, World, others, round_robin
from umr.data.world.draw import Picture
from umr.data.world.random_stream import Stream
from umr.data.world.registry import Registry
from umr.data.world.scene import (
    CELLS,
    COLOURS,
    SHAPES,
    Scene,
    Thing,
    draw_until,
    free_cells,
    kinds_differ,
    random_kind,
    random_scene,
    scene_of,
)
from umr.data.world.settings import SPLITS, Split
from umr.data.world.truth import things_of, view_of
from umr.data.world.wording import a_kind, kind_words, shape_word

EDITS, MOVES = 5, 4
"""Pictures that come of a given one by one change each. With it there are six edited pictures, so that hit@5 needs the words, and
five moved boards: there hit@5 asks for the right board, and hit@1 for the words, which are the hardest of World."""

_BACK = 3  # edits of a family that train queries also ask for the other way round


def plan_edits(world: World) -> None:
    """Plan `edits_task7`; a family is asked about forth and back."""
    book, setting = world.book("edits"), "edits_task7"
    forth = [(0, target) for target in range(1, EDITS + 1)]
    steps = forth + [(target, 0) for _, target in forth]
    for split in SPLITS:
        stream = book.stream(split)
        n = world.scale.queries(setting, split)
        wanted = ceil(n / (EDITS + _BACK)) if split == "train" else ceil(world.scale.room(setting, split) / (1 + EDITS))
        families = [_edited_family(stream, world.scenes) for _ in range(wanted)]
        paths, dids = _write_pool(book, setting, split, families)
        for f, step in round_robin(wanted, len(steps), n):
            source, target = steps[step]
            before, after = families[f][source], families[f][target]
            claims = [["same", things_of(after)]]
            text = describe_edit(stream, before, after)
            book.query(setting, split, text, paths[f][source], [dids[f][target]], others(dids[f], target), claims=claims)


def plan_moves(world: World) -> None:
    """Plan `moves_task7`: swaps, mirror images, steps, and one thing put beside another."""
    book, setting = world.book("moves"), "moves_task7"
    for split in SPLITS:
        stream = book.stream(split)
        n = world.scale.queries(setting, split)
        wanted = ceil(n / MOVES) if split == "train" else ceil(world.scale.room(setting, split) / (1 + MOVES))
        made = [_moved_family(stream, world.scenes) for _ in range(wanted)]
        families = [family for family, _ in made]
        paths, dids = _write_pool(book, setting, split, families)
        for f, move in round_robin(wanted, MOVES, n):
            claims = [["same", things_of(families[f][move + 1])]]
            text, negatives = made[f][1][move], others(dids[f], move + 1)
            book.query(setting, split, text, paths[f][0], [dids[f][move + 1]], negatives, claims=claims)


def _write_pool(book: Book, setting: str, split: Split, families: list[list[Scene]]) -> tuple[list[list[str]], list[list[str]]]:
    paths = [[book.draw(split, Picture(book.dataset, scene)) for scene in family] for family in families]
    dids = [
        [book.candidate(setting, split, None, path, view=view_of(scene)) for scene, path in zip(*row, strict=True)]
        for row in zip(families, paths, strict=True)
    ]
    return paths, dids


def _edited_family(stream: Stream, registry: Registry) -> list[Scene]:
    def make() -> list[Scene] | None:
        base = random_scene(stream, 2 if stream.chance(0.6) else 3)
        changes = (_recolour, _reshape, _relocate, _add, _remove if len(base) > 2 else _relocate)
        family = [base, *(stream.pick(changes)(stream, base) for _ in range(EDITS))]
        return family if all(map(kinds_differ, family)) and registry.claim(family) else None

    return draw_until(make)


def _replace(scene: Scene, old: Thing, new: Thing | None) -> Scene:
    return scene_of([thing for thing in scene if thing != old] + ([new] if new else []))


def _recolour(stream: Stream, scene: Scene) -> Scene:
    thing = stream.pick(scene)
    return _replace(scene, thing, thing._replace(kind=thing.kind._replace(colour=stream.other(COLOURS, thing.kind.colour))))


def _reshape(stream: Stream, scene: Scene) -> Scene:
    thing = stream.pick(scene)
    return _replace(scene, thing, thing._replace(kind=thing.kind._replace(shape=stream.other(SHAPES, thing.kind.shape))))


def _relocate(stream: Stream, scene: Scene) -> Scene:
    thing = stream.pick(scene)
    return _replace(scene, thing, thing._replace(cell=stream.pick(free_cells(scene))))


def _remove(stream: Stream, scene: Scene) -> Scene:
    return _replace(scene, stream.pick(scene), None)


def _add(stream: Stream, scene: Scene) -> Scene:
    return scene_of([*scene, Thing(stream.pick(free_cells(scene)), random_kind(stream))])


def describe_edit(stream: Stream, before: Scene, after: Scene) -> str:
    """The one change that leads from `before` to `after`, in words."""
    gone = [thing for thing in before if thing not in after]
    new = [thing for thing in after if thing not in before]
    if not gone:
        what, cell = a_kind(stream, new[0].kind), CELLS[new[0].cell]
        return stream.pick((f"add {what} in the {cell}", f"with {what} added in the {cell}", f"draw {what} in the {cell} too"))
    old = f"the {kind_words(stream, gone[0].kind)}"
    if not new:
        return stream.pick((f"remove {old}", f"take away {old}", f"without {old}"))
    if gone[0].kind == new[0].kind:
        cell = CELLS[new[0].cell]
        return stream.pick((f"move {old} to the {cell}", f"put {old} in the {cell} instead", f"with {old} moved to the {cell}"))
    if gone[0].kind.shape == new[0].kind.shape:
        colour = new[0].kind.colour
        return stream.pick((f"make {old} {colour}", f"change {old} to {colour}", f"paint {old} {colour}"))
    shape = shape_word(stream, new[0].kind.shape)
    article = "an" if shape[0] in "aeiou" else "a"
    return stream.pick((f"turn {old} into {article} {shape}", f"make {old} {article} {shape}", f"reshape {old} to {article} {shape}"))


def _moved_family(stream: Stream, registry: Registry) -> tuple[list[Scene], list[str]]:
    """A scene followed by its changed ones, and how to get to each of these."""

    def make() -> tuple[list[Scene], list[str]] | None:
        base = random_scene(stream, 2 if stream.chance(0.4) else 3)
        moved: dict[Scene, str] = {}
        for _ in range(4 * MOVES):
            if len(moved) < MOVES and (move := stream.pick(_MOVES)(stream, base)) is not None and move[0] != base:
                moved.setdefault(*move)
        family = [base, *moved]
        return (family, list(moved.values())) if len(moved) == MOVES and registry.claim(family) else None

    return draw_until(make)


def _swap(stream: Stream, scene: Scene) -> tuple[Scene, str]:
    first, second = stream.sample(scene, 2)
    rest = [thing for thing in scene if thing not in (first, second)]
    swapped = scene_of([*rest, first._replace(cell=second.cell), second._replace(cell=first.cell)])
    a, b = kind_words(stream, first.kind), kind_words(stream, second.kind)
    return swapped, stream.pick((f"swap the {a} and the {b}", f"let the {a} and the {b} change places"))


def _mirror(stream: Stream, scene: Scene) -> tuple[Scene, str]:
    if stream.chance(0.5):
        mirrored = scene_of([thing._replace(cell=3 * thing.row + 2 - thing.column) for thing in scene])
        return mirrored, stream.pick(("mirror the board left to right", "flip left and right"))
    mirrored = scene_of([thing._replace(cell=3 * (2 - thing.row) + thing.column) for thing in scene])
    return mirrored, stream.pick(("mirror the board top to bottom", "flip top and bottom"))


_STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def _step(stream: Stream, scene: Scene) -> tuple[Scene, str] | None:
    thing, direction = stream.pick(scene), stream.pick(tuple(_STEPS))
    cell = _beside(thing, direction)
    if cell is None or cell not in free_cells(scene):
        return None
    name = kind_words(stream, thing.kind)
    moved = _replace(scene, thing, thing._replace(cell=cell))
    return moved, stream.pick((f"move the {name} one step {direction}", f"the {name} goes one step {direction}"))


def _put_beside(stream: Stream, scene: Scene) -> tuple[Scene, str] | None:
    thing, anchor = stream.sample(scene, 2)
    direction, words = stream.pick((("left", "left of"), ("right", "right of"), ("up", "above"), ("down", "below")))
    cell = _beside(anchor, direction)
    if cell is None or cell not in free_cells(scene):
        return None
    a, b = kind_words(stream, thing.kind), kind_words(stream, anchor.kind)
    return _replace(scene, thing, thing._replace(cell=cell)), stream.pick(
        (f"put the {a} directly {words} the {b}", f"place the {a} just {words} the {b}")
    )


def _beside(thing: Thing, direction: str) -> int | None:
    """The cell next to a thing, if the board goes on there."""
    down, across = _STEPS[direction]
    row, column = thing.row + down, thing.column + across
    return 3 * row + column if 0 <= row < 3 and 0 <= column < 3 else None


_MOVES: tuple[Callable[[Stream, Scene], tuple[Scene, str] | None], ...] = (_swap, _mirror, _step, _put_beside)
