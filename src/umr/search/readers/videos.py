"""A video: a piece for each clip of some seconds, with its range of time, decoded in one pass over the file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from umr import video_files
from umr.errors import DataError, MediaError
from umr.frames import FrameSampling
from umr.items import Video
from umr.search.readers.opening import size_of
from umr.search.readers.piece import LeftOut, Piece, item_of, piece_id, thumbnail

if TYPE_CHECKING:
    import PIL.Image

CLIP = 10.0
"""Seconds of a clip."""
MOST_BYTES = 32 * 2**30
"""Of a video file, which is read as it streams by."""
MOST_SECONDS = 6 * 3600.0
MOST_FRAMES = 2_000_000
FRAME_PIXELS = 500_000
"""Of a frame as it is kept; larger ones are reduced. Models look at less."""
SAMPLING = FrameSampling()
"""Which frames of a clip are kept."""


@dataclass(frozen=True)
class _Clip:
    """Numbers of the frames of a clip, in the order they are shown, and its range in seconds."""

    first: int
    stop: int
    start: float
    end: float

    def kept(self) -> tuple[int, ...]:
        total = self.stop - self.first
        return tuple(self.first + index for index in SAMPLING.indices(total, total / max(self.end - self.start, 1e-3)))


def read(source: str, file: BinaryIO, seconds: float = CLIP, text: str = "") -> Iterator[Piece | LeftOut]:
    """The clips of a video, whose ids end in `#t=0-10`, `#t=10-20` ...

    Clips begin every `seconds`; a rest of less than half of that belongs to the last.

    Args:
        source: its path.
        file: the open file.
        seconds: length of a clip; infinite for the whole video as one, whose id has no ending.
        text: embedded with each clip.

    Raises:
        DataError, MediaError: it is damaged, truncated, without pictures, or over a limit.
    """
    if size_of(file) > MOST_BYTES:
        raise DataError(f"is {size_of(file)} bytes, over the limit of {MOST_BYTES} for videos")
    times = _times(file)
    clips = _clips(times, seconds)
    given = 0
    for clip, images in _decoded(file, clips):
        given += 1
        item = item_of(_video(images, clip, times), text=text)
        yield Piece(
            id=piece_id(source, "" if math.isinf(seconds) else f"t={_short(clip.start)}-{_short(clip.end)}"),
            source=source,
            item=item,
            digest=item.digest,
            text=text,
            media=source,
            start=clip.start,
            end=clip.end,
            thumbnail=thumbnail(images[len(images) // 2]),
            pixels=sum(image.width * image.height for image in images),
        )
    if given < len(clips):
        yield LeftOut(source, f"from {_short(clips[given].start)} s on it cannot be decoded")


def clip(path: Path, start: float, end: float) -> Video:
    """One clip, of the range that `read` gave it, with the same frames.

    Raises:
        DataError, MediaError: it cannot be read, or has nothing there.
    """
    with path.open("rb") as file:
        times = _times(file)
        inside = [index for index, time in enumerate(times) if start - 1e-6 <= time < end - 1e-6]
        if inside:
            wanted = _Clip(inside[0], inside[-1] + 1, start, end)
            for _, images in _decoded(file, [wanted]):
                return _video(images, wanted, times)
    raise DataError(f"{path}: has no frames between {start} and {end} s")


def _video(images: Sequence[PIL.Image.Image], clip: _Clip, times: Sequence[float]) -> Video:
    kept = clip.kept()[: len(images)]
    lasts = times[kept[-1]] - times[kept[0]]
    fps = (len(kept) - 1) / lasts if lasts > 0 else 1.0
    return Video(images, fps=round(fps, 6), sampling=SAMPLING)


def _open(file: BinaryIO) -> Any:
    import av

    file.seek(0)
    return av.open(file, "r", options={"format_whitelist": video_files.VIDEO_FORMATS, "protocol_whitelist": ""}, metadata_errors="replace")


def _times(file: BinaryIO) -> list[float]:
    """When each frame is shown, in seconds from the first, ascending; from the packets, without decoding."""
    import av

    try:
        with _open(file) as container:
            if not container.streams.video:
                raise MediaError(
                    "has sound but no pictures" if container.streams.audio else "holds neither pictures nor sound; is it truncated?"
                )
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise MediaError("is truncated, or in a format that FFmpeg cannot decode")
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > video_files.MAX_FRAME_PIXELS:
                raise MediaError(f"has frames of {width} x {height}, over the limit of {video_files.MAX_FRAME_PIXELS} pixels")
            stamps: list[int | None] = []
            for packet in container.demux(stream):
                if packet.size > 0:
                    stamps.append(packet.pts)
                if len(stamps) > MOST_FRAMES:
                    raise MediaError(f"has over {MOST_FRAMES} frames, the limit")
            if len(stamps) < 0.95 * stream.frames:
                raise MediaError(f"is truncated ({len(stamps)} of {stream.frames} frames are there)")
            rate, base = float(stream.average_rate or stream.guessed_rate or 24), float(stream.time_base or 0)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise MediaError(f"is not a video that can be read ({_why(error)})") from error
    if not stamps:
        raise MediaError("has no frames")
    known = sorted(stamp for stamp in stamps if stamp is not None)
    if len(known) < len(stamps) or not base:  # a bare stream without a clock
        times = [index / rate for index in range(len(stamps))]
    else:
        times = [(stamp - known[0]) * base for stamp in known]
    if times[-1] > MOST_SECONDS:
        raise MediaError(f"lasts {times[-1]:.0f} s, over the limit of {MOST_SECONDS:.0f} s")
    return times


def _clips(times: Sequence[float], seconds: float) -> list[_Clip]:
    """Ranges of frames; a range of time in which nothing is shown gives none."""
    step = times[-1] / (len(times) - 1) if len(times) > 1 and times[-1] > 0 else 1 / 24
    total = round(times[-1] + step, 3)  # the last frame stays for as long as the others
    count = 1 if math.isinf(seconds) else max(1, math.floor(total / seconds + 0.5))
    found, first = [], 0
    for number in range(count):
        end = total if number == count - 1 else (number + 1) * seconds
        stop = first
        while stop < len(times) and (number == count - 1 or times[stop] < end - 1e-6):
            stop += 1
        if stop > first:
            found.append(_Clip(first, stop, 0.0 if number == 0 else number * seconds, end))
        first = stop
    return found


def _decoded(file: BinaryIO, clips: Sequence[_Clip]) -> Iterator[tuple[_Clip, list[PIL.Image.Image]]]:
    """Each clip with the frames that are kept of it; the last frames of a file may be missing."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    number = -1
    try:
        with _open(file) as container:
            stream = container.streams.video[0]
            if stream.frames > 64:  # starting threads takes longer than decoding a short clip
                stream.thread_type = "AUTO"
            frames = container.decode(stream)
            for clip in clips:
                images: list[PIL.Image.Image] = []
                wanted = set(clip.kept())
                while number < max(wanted):
                    frame = next(frames, None)
                    if frame is None:
                        break
                    number += 1
                    if number in wanted:
                        images.append(_image(frame, reformatter))
                if not images:
                    break
                yield clip, images
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise MediaError(f"is not a video that can be read ({_why(error)})") from error
    if number < 0 or not clips:
        raise MediaError("no frame of the video can be decoded")


def _image(frame: Any, reformatter: Any) -> PIL.Image.Image:
    import PIL.Image

    area = frame.width * frame.height
    if area > video_files.MAX_FRAME_PIXELS:
        raise MediaError(f"has a frame of {frame.width} x {frame.height}, over the limit of {video_files.MAX_FRAME_PIXELS} pixels")
    scale = min(1.0, math.sqrt(FRAME_PIXELS / area))
    width, height = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
    image = PIL.Image.fromarray(reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray())
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _short(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _why(error: Exception) -> str:
    """Without the name of the file, which FFmpeg adds."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return said.splitlines()[0].lower()
