"""Short clips: a thing that moves, grows or turns another colour, encoded as an mp4 file."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import NamedTuple

import av
from PIL import Image

from umr.data.world.draw import CELL, STYLES, background, grain, shade, stamp
from umr.data.world.random_stream import Stream
from umr.data.world.scene import COLOURS, COLUMNS, ROWS, Kind, Thing

FRAMES = 6
FRAMES_PER_SECOND = 2  # what a sampler that keeps two frames a second sees whole

SIDEWAYS = ("from left to right", "from right to left")
UPRIGHT = ("from top to bottom", "from bottom to top")
IN_PLACE = ("grows", "shrinks", *(f"turns {colour}" for colour in COLOURS))


class Act(NamedTuple):
    """What the main thing of a clip does. `lane` is a row (0..2) for `SIDEWAYS`, a column for `UPRIGHT`, a cell for `IN_PLACE`."""

    kind: Kind
    motion: str
    lane: int

    @property
    def cells(self) -> tuple[int, ...]:
        """The cells it is seen in."""
        if self.motion in SIDEWAYS:
            return tuple(3 * self.lane + column for column in range(len(COLUMNS)))
        if self.motion in UPRIGHT:
            return tuple(3 * row + self.lane for row in range(len(ROWS)))
        return (self.lane,)


@dataclass(frozen=True)
class Clip:
    """An act, and perhaps a thing that stays where it is."""

    act: Act
    still: Thing | None = None


def encode_clip(clip: Clip, stream: Stream) -> bytes:
    """Draw six frames and encode them as MPEG-4 at two frames a second; one thread, and no time or version in the file."""
    data = BytesIO()
    with av.open(data, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = STYLES["clips"].width, STYLES["clips"].height, "yuv420p"
        video.bit_rate = 600_000
        video.time_base = Fraction(1, FRAMES_PER_SECOND)
        video.codec_context.thread_count = 1
        video.codec_context.flags |= av.codec.context.Flags.bitexact
        for image in frames(clip, stream):
            container.mux(video.encode(av.VideoFrame.from_image(image)))
        container.mux(video.encode())
    return data.getvalue()


def frames(clip: Clip, stream: Stream) -> list[Image.Image]:
    """The frames as RGB images over one unchanging background."""
    empty = background("clips", stream)
    size, jitter = 22 + stream.below(5), (stream.between(-3, 3), stream.between(-3, 3))
    colour = shade(stream, clip.act.kind)
    if clip.still is not None:
        _stamp_at(empty, clip.still.kind, clip.still.cell % 3, clip.still.cell // 3, (0.0, 0.0), 24, shade(stream, clip.still.kind))
    images = []
    for index in range(FRAMES):
        column, row, scale, kind = _state(clip.act, index / (FRAMES - 1))
        image = empty.copy()
        paint = colour if kind is clip.act.kind else shade(stream, kind)
        _stamp_at(image, kind, column, row, jitter, round(size * scale), paint)
        images.append(grain(image, STYLES["clips"].noise, stream))
    return images


def _state(act: Act, time: float) -> tuple[float, float, float, Kind]:
    """Column, row, size and kind at a time from 0 to 1."""
    if act.motion in SIDEWAYS:
        return (2 * time if act.motion == SIDEWAYS[0] else 2 - 2 * time), act.lane, 1.0, act.kind
    if act.motion in UPRIGHT:
        return act.lane, (2 * time if act.motion == UPRIGHT[0] else 2 - 2 * time), 1.0, act.kind
    column, row = act.lane % 3, act.lane // 3
    if act.motion == "grows":
        return column, row, 0.45 + 0.75 * time, act.kind
    if act.motion == "shrinks":
        return column, row, 1.2 - 0.75 * time, act.kind
    return column, row, 1.0, act.kind if time < 0.5 else act.kind._replace(colour=act.motion.removeprefix("turns "))


def _stamp_at(
    image: Image.Image, kind: Kind, column: float, row: float, jitter: tuple[float, float], size: int, colour: tuple[int, int, int]
) -> None:
    stamp(image, kind, (column + 0.5) * CELL + jitter[0], (row + 0.5) * CELL + jitter[1], size, colour)
