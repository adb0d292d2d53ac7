"""Decoding video files with PyAV, within limits.

The limits are module constants; a program that must read larger videos sets them (`umr.video_files.MAX_VIDEO_SECONDS = ...`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.errors import MediaError
from umr.frames import Frames, FrameSampling
from umr.media_files import check_file

if TYPE_CHECKING:
    import PIL.Image

VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,ogg,asf,gif"
"""Containers that are read. Playlists are not among them: they can point at other files and at the network."""
MAX_VIDEO_BYTES = 2**30
"""Size of a video file."""
MAX_FRAME_PIXELS = 16_000_000
"""Width times height of a video frame."""
MAX_VIDEO_SECONDS = 3600.0
"""Duration of a video file."""
MAX_VIDEO_FRAMES = 250_000
"""Frames in a video, all of which may have to be decoded to sample the last."""


def read_video_file(path: Path, sampling: FrameSampling) -> Frames:
    """Decode a video and keep the frames that `sampling` asks for, upright and in RGB.

    Raises:
        MediaError: the file is missing, damaged, truncated, without pictures or over a limit.
    """
    import av

    check_file(path, MAX_VIDEO_BYTES, "video")
    try:
        total, fps = _probe(path)
        indices = sampling.indices(total, fps)
        images = _decode_frames(path, indices)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise MediaError(f"{path}: is not a video that can be read ({error})") from error
    if not images:
        raise MediaError(f"{path}: no frame of the video can be decoded")
    return Frames(tuple(images), fps, indices[: len(images)])


def _open_video(path: Path) -> Any:
    import av

    return av.open(str(path), options={"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file"})


def _probe(path: Path) -> tuple[int, float]:
    """Number of frames, counted from the packets since headers may lie, and frames per second."""
    with _open_video(path) as container:
        if not container.streams.video:
            raise MediaError(f"{path}: has no video stream")
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_FRAME_PIXELS:
            raise MediaError(f"{path}: frames of {width} x {height} are over the limit of {MAX_FRAME_PIXELS} pixels")
        total = 0
        for packet in container.demux(stream):
            total += packet.size > 0
            if total > MAX_VIDEO_FRAMES:
                raise MediaError(f"{path}: is over the limit of {MAX_VIDEO_FRAMES} frames")
        fps = float(stream.average_rate or stream.guessed_rate or 24)
        if total < 0.95 * stream.frames:
            raise MediaError(f"{path}: is truncated ({total} of {stream.frames} frames are there)")
    if total == 0:
        raise MediaError(f"{path}: has no frames")
    if total / fps > MAX_VIDEO_SECONDS:
        raise MediaError(f"{path}: lasts {total / fps:.0f} s, over the limit of {MAX_VIDEO_SECONDS:.0f} s")
    return total, fps


def _decode_frames(path: Path, indices: tuple[int, ...]) -> list[PIL.Image.Image]:
    """The frames with these ascending numbers; fewer if the last ones cannot be decoded."""
    import PIL.Image
    from av.video.reformatter import VideoReformatter

    images: list[PIL.Image.Image] = []
    to_rgb = VideoReformatter()
    with _open_video(path) as container:
        stream = container.streams.video[0]
        if stream.frames > 64:  # starting threads takes longer than decoding a short clip
            stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number == indices[len(images)]:
                if frame.width * frame.height > MAX_FRAME_PIXELS:
                    raise MediaError(f"{path}: a frame of {frame.width} x {frame.height} is over the limit of {MAX_FRAME_PIXELS} pixels")
                image = PIL.Image.fromarray(to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray())
                images.append(image.rotate(frame.rotation, expand=True) if frame.rotation else image)
                if len(images) == len(indices):
                    break
    return images
