"""Images and videos become patches for the vision tower and the tokens that stand for them in the sequence.

The pixels go through the checkpoint's own transformers processor, so they are the ones that every other program computes
from the same folder. What surrounds them in the sequence is decided here, per backbone family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from umr.errors import RenderError
from umr.media import Frames

if TYPE_CHECKING:
    import PIL.Image

IMAGE, VIDEO = 1, 2
"""Token types of transformers' multimodal rotary positions; text is 0."""


@dataclass(frozen=True)
class VisionBlock:
    """One image or video, ready for the model.

    Attributes:
        kind: `IMAGE` or `VIDEO`.
        patches_PC: pixels cut into P patches of C values, float32.
        grid: (time, height, width) in patches; their product is P.
        pieces: what stands for it in the sequence, in order: text to tokenise, or token ids with their types.
        seconds_per_grid: seconds between two steps of `grid[0]`; 0 for images.
        image_size: (height, width) in pixels before any processing, for models that ask for it; None for others.
        digest: of the image or video; blocks of one reader with the same digest are equal. Empty: not known.
    """

    kind: int
    patches_PC: torch.Tensor
    grid: tuple[int, int, int]
    pieces: tuple[str | tuple[int, ...], ...]
    seconds_per_grid: float = 0.0
    image_size: tuple[int, int] | None = None
    digest: str = ""


class MediaReader(Protocol):
    """What turns decoded images and videos into `VisionBlock`s, in the way of one kind of backbone.

    Attributes:
        image_id: token that stands for a piece of an image.
        video_id: token that stands for a piece of a video.
        has_timestamps: whether frames of a video carry their times.
    """

    image_id: int
    video_id: int
    has_timestamps: bool

    def images(self, images: list[PIL.Image.Image]) -> list[VisionBlock]:
        """Process images; each result depends on its image alone."""
        ...

    def video(self, frames: Frames) -> VisionBlock:
        """Process one video whose frames are already sampled, or raise `RenderError`."""
        ...


def frames_metadata(frames: Frames) -> dict[str, Any]:
    """What transformers wants to know about sampled frames, in its own words.

    The frames run from the first to the last of the original video, so the last index tells how long that was.
    """
    total = frames.indices[-1] + 1
    return {"total_num_frames": total, "fps": frames.fps, "frames_indices": list(frames.indices), "duration": total / frames.fps}


def set_frame_budget(video_processor: Any, max_pixels: int) -> None:
    """Bound the area of a video frame.

    Qwen2-VL's and Qwen2.5-VL's processors bound a frame, Qwen3-VL's the whole video unless it is told to bound frames.
    """
    shortest, longest = video_processor.size["shortest_edge"], video_processor.size["longest_edge"]
    # The processors' own floor is 1.05 times the shortest.
    shortest = min(shortest, int(max_pixels / 1.05))
    if type(video_processor).__name__.startswith("Qwen3VL"):
        tile = (video_processor.patch_size * video_processor.merge_size) ** 2
        video_processor.cap_pixels_per_frame = True
        video_processor.max_video_tokens = max(1, max_pixels // tile)
    else:
        longest = max_pixels
    video_processor.size = {"shortest_edge": shortest, "longest_edge": longest}


def _check_shape(image: PIL.Image.Image, what: str) -> None:
    if max(image.size) > 200 * min(image.size):
        raise RenderError(f"{what} of {image.width}x{image.height} is too narrow: its sides may differ by a factor of 200 at most")


class VisionReader:
    """Turns decoded media into `VisionBlock`s with a Qwen-VL processor of transformers.

    Args:
        processor: Qwen2-VL's, Qwen2.5-VL's or Qwen3-VL's; its image and video processors carry the pixel budgets.
    """

    def __init__(self, processor: Any) -> None:
        self.image_processor = processor.image_processor
        self.video_processor = processor.video_processor
        tokenizer = processor.tokenizer
        ids = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>", processor.image_token, processor.video_token])
        self.start_id, self.end_id, self.image_id, self.video_id = ids
        # Qwen3-VL writes a timestamp before each pair of frames; its predecessors give a video one block.
        self.has_timestamps = type(processor).__name__.startswith("Qwen3VL")

    def images(self, images: list[PIL.Image.Image]) -> list[VisionBlock]:
        """Process images in one call, which groups equal sizes; each result depends on its image alone."""
        if not images:
            return []
        for image in images:
            _check_shape(image, "an image")
        out = self.image_processor(images=images, return_tensors="pt")
        grids = [tuple(grid) for grid in out["image_grid_thw"].tolist()]
        patches = torch.split(out["pixel_values"], [int(np.prod(grid)) for grid in grids])
        unit = self.image_processor.merge_size**2
        return [
            VisionBlock(IMAGE, pixels, grid, ((self.start_id, *[self.image_id] * (int(np.prod(grid)) // unit), self.end_id),))
            for pixels, grid in zip(patches, grids, strict=True)
        ]

    def video(self, frames: Frames) -> VisionBlock:
        """Process one video whose frames are already sampled."""
        from transformers.video_utils import VideoMetadata

        _check_shape(frames.images[0], "a video")
        metadata = VideoMetadata(**frames_metadata(frames))
        step = self.video_processor.temporal_patch_size
        # Processors repeat a last frame that lacks its partner, but Qwen3-VL's refuses a video of one.
        repeats = max(0, step - len(frames.images))
        array = np.stack([np.asarray(image) for image in (*frames.images, *frames.images[-1:] * repeats)])
        # The processor wants channels first and decides by shape; say it outright.
        out = self.video_processor(
            videos=[array.transpose(0, 3, 1, 2)],
            video_metadata=[metadata],
            do_sample_frames=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        grid = tuple(out["video_grid_thw"][0].tolist())
        pieces = self._timestamped(frames, grid, step) if self.has_timestamps else (self._block(int(np.prod(grid))),)
        return VisionBlock(VIDEO, out["pixel_values_videos"], grid, pieces, seconds_per_grid=step / metadata.sampled_fps)

    def _block(self, patches: int) -> tuple[int, ...]:
        return (self.start_id, *[self.video_id] * (patches // self.video_processor.merge_size**2), self.end_id)

    def _timestamped(self, frames: Frames, grid: tuple[int, int, int], step: int) -> tuple[str | tuple[int, ...], ...]:
        seconds = [index / frames.fps for index in frames.indices]
        seconds += [seconds[-1]] * (-len(seconds) % step)
        pieces: list[str | tuple[int, ...]] = []
        for index in range(grid[0]):
            # A patch spans `step` frames and carries the middle of their times.
            pieces.append(f"<{(seconds[index * step] + seconds[index * step + step - 1]) / 2:.1f} seconds>")
            pieces.append(self._block(grid[1] * grid[2]))
        return tuple(pieces)
