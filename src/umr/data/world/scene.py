"""What a picture shows: things of a colour and a shape in the cells of a 3x3 grid. Data only; `draw` makes pixels of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from umr.data.world.random_stream import Stream

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "black")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
TEXTURES = ("plain", "striped", "spotted", "checked")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
CELLS = tuple("center" if (row, column) == ("middle", "center") else f"{row} {column}" for row in ROWS for column in COLUMNS)
CENTER = 4

T = TypeVar("T")


class Kind(NamedTuple):
    """A sort of thing. Without a texture it is drawn plain and its texture is never spoken of."""

    colour: str
    shape: str
    texture: str = ""

    @property
    def name(self) -> str:
        """The one full name, such as `"red circle"` or `"striped red circle"`."""
        return f"{self.texture} {self.colour} {self.shape}" if self.texture else f"{self.colour} {self.shape}"


class Thing(NamedTuple):
    """A kind in a cell; cells count 0..8, row by row from the top left."""

    cell: int
    kind: Kind

    @property
    def row(self) -> int:
        """0 top, 1 middle, 2 bottom."""
        return self.cell // 3

    @property
    def column(self) -> int:
        """0 left, 1 center, 2 right."""
        return self.cell % 3


Scene: TypeAlias = tuple[Thing, ...]
"""Things in order of their cells, at most one a cell. Equal scenes are equal tuples."""


def scene_of(things: Sequence[Thing]) -> Scene:
    """Bring things into the one order that makes equal scenes equal."""
    return tuple(sorted(things))


def free_cells(scene: Sequence[Thing]) -> list[int]:
    """Cells without a thing."""
    taken = {thing.cell for thing in scene}
    return [cell for cell in range(9) if cell not in taken]


def random_kind(stream: Stream, textured: bool = False) -> Kind:
    """Any colour and shape; any texture too when `textured`."""
    return Kind(stream.pick(COLOURS), stream.pick(SHAPES), stream.pick(TEXTURES) if textured else "")


def random_kinds(stream: Stream, n: int, textured: bool = False) -> list[Kind]:
    """`n` different kinds."""
    kinds: list[Kind] = []
    while len(kinds) < n:
        kind = random_kind(stream, textured)
        if kind not in kinds:
            kinds.append(kind)
    return kinds


def random_scene(stream: Stream, n: int) -> Scene:
    """`n` things of different kinds in different cells."""
    return place(stream, random_kinds(stream, n))


def place(stream: Stream, kinds: Sequence[Kind]) -> Scene:
    """Put `kinds` into random cells."""
    return scene_of([Thing(cell, kind) for cell, kind in zip(stream.sample(range(9), len(kinds)), kinds, strict=True)])


def alter_kind(stream: Stream, kind: Kind) -> Kind:
    """Change colour, shape, or (where named) texture."""
    attribute = stream.below(3 if kind.texture else 2)
    if attribute == 0:
        return kind._replace(colour=stream.other(COLOURS, kind.colour))
    if attribute == 1:
        return kind._replace(shape=stream.other(SHAPES, kind.shape))
    return kind._replace(texture=stream.other(TEXTURES, kind.texture))


def alter(stream: Stream, scene: Scene) -> Scene:
    """Change one attribute of one thing: half of the time its cell, else colour or shape.

    The result may hold two things of one kind; a caller who forbids that draws again.
    """
    things = list(scene)
    i = stream.below(len(things))
    if stream.chance(0.5):
        things[i] = things[i]._replace(cell=stream.pick(free_cells(things)))
    else:
        things[i] = things[i]._replace(kind=alter_kind(stream, things[i].kind))
    return scene_of(things)


def kinds_differ(scene: Scene) -> bool:
    """No two things are of one kind, so that naming a kind points at one thing."""
    return len({thing.kind for thing in scene}) == len(scene)


def draw_until(make: Callable[[], T | None]) -> T:
    """Call `make` until it returns something.

    Raises:
        RuntimeError: nothing came of 20,000 tries; the space of scenes is too small for the size asked for.
    """
    for _ in range(20_000):
        if (made := make()) is not None:
            return made
    raise RuntimeError("the generator ran out of unused scenes")
