"""Which frames of a video are kept, and the frames themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from umr.errors import MediaError

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True)
class FrameSampling:
    """How many frames of a video are kept; they are spread evenly from the first to the last.

    Attributes:
        fps: frames kept per second of video.
        min_frames: at least so many, where the video has them.
        max_frames: at most so many.
        even: keep an even number (rounded down, at least two), since vision models take frames in pairs. A video of
            one frame stays one frame.

    Raises:
        MediaError: the numbers contradict each other.
    """

    fps: float = 2.0
    min_frames: int = 2
    max_frames: int = 16
    even: bool = True

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise MediaError(f"frame sampling: fps must be above zero, not {self.fps}")
        if not 1 <= self.min_frames <= self.max_frames:
            raise MediaError(f"frame sampling: need 1 <= min_frames <= max_frames, not {self.min_frames} and {self.max_frames}")
        if self.even and self.max_frames < 2:
            raise MediaError("frame sampling: an even number of frames needs max_frames >= 2; or say even=False")

    def indices(self, total: int, fps: float) -> tuple[int, ...]:
        """Numbers of the frames to keep, ascending and distinct.

        Args:
            total: frames in the video, at least 1.
            fps: frames per second of the video.
        """
        wanted = max(self.min_frames, min(self.max_frames, round(total / fps * self.fps)))
        return self._spread(total, min(wanted, total))

    def thin(self, total: int) -> tuple[int, ...]:
        """As `indices`, for a list of frames that somebody has already sampled: all of them, up to `max_frames`."""
        return tuple(range(total)) if total <= self.max_frames else self._spread(total, self.max_frames)

    def _spread(self, total: int, count: int) -> tuple[int, ...]:
        if self.even and total >= 2:
            count = max(2, count - count % 2)
        if count == 1:
            return (0,)
        return tuple(round(i * (total - 1) / (count - 1)) for i in range(count))


@dataclass(frozen=True)
class Frames:
    """Sampled frames of a video.

    Attributes:
        images: the frames in order, RGB, all of one size.
        fps: frames per second of the original video.
        indices: for each frame its number in the original video, from 0.
    """

    images: tuple[PIL.Image.Image, ...]
    fps: float
    indices: tuple[int, ...]

    @property
    def timestamps(self) -> tuple[float, ...]:
        """For each frame its time in the original video in seconds, at a constant rate."""
        return tuple(index / self.fps for index in self.indices)
