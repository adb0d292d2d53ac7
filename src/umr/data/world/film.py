"""`clips`: a description of a motion leads to the clip that shows it (text -> video)."""

from __future__ import annotations

from math import ceil

from umr.data.world.book import World, others, round_robin
from umr.data.world.clips import IN_PLACE, SIDEWAYS, UPRIGHT, Act, Clip
from umr.data.world.random_stream import Stream
from umr.data.world.registry import Key, Registry
from umr.data.world.scene import CELLS, COLUMNS, ROWS, Thing, alter_kind, draw_until, random_kind
from umr.data.world.settings import SPLITS
from umr.data.world.truth import Claim, View
from umr.data.world.wording import a_kind

_CHANGES = ("motion", "kind", "place", "place", "both", "both")
FAMILY = 1 + len(_CHANGES)
"""A clip and six that differ from it: one of another kind, the others in motion, place, or both."""


def plan_clips(world: World) -> None:
    """Plan `clips_task9`."""
    book, setting = world.book("clips"), "clips_task9"
    registry = world.registry("acts")
    for split in SPLITS:
        stream = book.stream(split)
        families = [_family(stream, registry, world.scale.alone) for _ in range(ceil(world.scale.room(setting, split) / FAMILY))]
        dids = [[book.candidate(setting, split, None, book.draw(split, clip), view=_view(clip)) for clip in family] for family in families]
        for f, m in round_robin(len(families), FAMILY, world.scale.queries(setting, split)):
            clip = families[f][m]
            book.query(setting, split, describe_clip(stream, clip), None, [dids[f][m]], others(dids[f], m), claims=_claims(clip))


def random_clip(stream: Stream, alone: float) -> Clip:
    """Any act, with a still thing outside its way unless it is `alone` (a probability)."""
    kind = random_kind(stream)
    act = Act(kind, *_motion(stream, kind.colour))
    if stream.chance(alone):
        return Clip(act)
    cell = stream.pick([cell for cell in range(9) if cell not in act.cells])
    still = draw_until(lambda: other if (other := random_kind(stream)) != kind else None)
    return Clip(act, Thing(cell, still))


def describe_clip(stream: Stream, clip: Clip) -> str:
    """All that a clip shows, in words."""
    act = clip.act
    who = a_kind(stream, act.kind)
    if act.motion in IN_PLACE:
        text = f"{who} {act.motion} in the {CELLS[act.lane]}"
    else:
        verb = stream.pick(("moves", "goes", "slides"))
        lane = ROWS[act.lane] if act.motion in SIDEWAYS else COLUMNS[act.lane]
        where = f"along the {lane} row" if act.motion in SIDEWAYS else f"along the {lane} column"
        text = f"{who} {verb} {act.motion} {where}"
    if clip.still is None:
        return stream.pick(("{}", "a video in which {}")).format(text)
    still, cell = a_kind(stream, clip.still.kind), CELLS[clip.still.cell]
    return stream.pick((f"{text} while {still} stays in the {cell}", f"{text}, with {still} in the {cell}"))


def alter_clip(stream: Stream, clip: Clip, what: str) -> Clip:
    """Change the act's `"motion"` (to another of its sort), `"kind"`, `"place"`, or `"both"` motion and place.

    The new place may be the still thing's; a caller draws again then.
    """
    act = clip.act
    if what == "kind":
        colour = act.motion.removeprefix("turns ")
        kind = draw_until(lambda: kind if (kind := alter_kind(stream, act.kind)).colour != colour else None)
        return Clip(act._replace(kind=kind), clip.still)
    if what in ("motion", "both"):
        sort = SIDEWAYS if act.motion in SIDEWAYS else UPRIGHT if act.motion in UPRIGHT else IN_PLACE
        options = [motion for motion in sort if motion != f"turns {act.kind.colour}"]
        act = act._replace(motion=stream.other(options, act.motion))
    if what in ("place", "both"):
        act = act._replace(lane=stream.other(range(9 if act.motion in IN_PLACE else 3), act.lane))
    return Clip(act, clip.still)


def _motion(stream: Stream, colour: str) -> tuple[str, int]:
    group = stream.below(3)
    if group == 0:
        return stream.pick(SIDEWAYS), stream.below(3)
    if group == 1:
        return stream.pick(UPRIGHT), stream.below(3)
    return stream.pick([motion for motion in IN_PLACE if motion != f"turns {colour}"]), stream.below(9)


def _family(stream: Stream, registry: Registry, alone: float) -> list[Clip]:
    def make() -> list[Clip] | None:
        base = random_clip(stream, alone)
        family = [base, *(alter_clip(stream, base, what) for what in _CHANGES)]
        if any(clip.still and (clip.still.cell in clip.act.cells or clip.still.kind == clip.act.kind) for clip in family):
            return None
        return family if registry.claim([clip_key(clip) for clip in family], closed=True) else None

    return draw_until(make)


def _act_words(act: Act) -> str:
    return f"{act.kind.name} {act.motion} {act.lane}"


def clip_key(clip: Clip) -> Key:
    """What a clip shows, as the registry takes it."""
    still = () if clip.still is None else ((1, clip.still),)
    return ((0, clip.act), *still)


def _view(clip: Clip) -> View:
    still = [] if clip.still is None else [[clip.still.kind.name, CELLS[clip.still.cell]]]
    return {"things": still, "tags": {"act": _act_words(clip.act)}}


def _claims(clip: Clip) -> list[Claim]:
    claims: list[Claim] = [["tag", "act", _act_words(clip.act)]]
    if clip.still is not None:
        claims.append(["at", clip.still.kind.name, CELLS[clip.still.cell]])
    return claims
