"""Images for LLaVA-NeXT: one crop that shows the whole image, or that crop and tiles of an enlarged one ("anyres").

The pixels go through the checkpoint's own transformers processor. How many tokens stand for an image follows from what
transformers' model does with its features, whose own functions are asked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from umr.errors import RenderError
from umr.media import Frames
from umr.rendering.vision import IMAGE, VisionBlock

if TYPE_CHECKING:
    import PIL.Image

ImageTiles = Literal["global", "anyres"]


class LlavaReader:
    """Turns images into `VisionBlock`s with a LLaVA-NeXT processor of transformers.

    With `"global"` an image is squeezed into one square, as MM-Embed does (its option `global_image_patch_only`,
    spec/mm-embed-and-mbeir.md 1.2): side 336 and patches of 14 make 24 x 24 = 576 tokens. One more follows, the model's learned
    end of a line, which transformers' model puts behind an image without tiles. With `"anyres"` the tiles come after the
    square, without their padding and with the end of a line behind each row, as LLaVA-NeXT itself reads images.

    Args:
        processor: its image processor says how pixels are prepared, its tokenizer which token stands for an image.
        config: the model's configuration: patches a side, the grids that tiles may form, which features are used.
        tiles: `"global"` or `"anyres"`.
    """

    has_timestamps = False

    def __init__(self, processor: Any, config: Any, tiles: ImageTiles) -> None:
        self.image_processor, self.tiles = processor.image_processor, tiles
        self.image_id = int(config.image_token_index)
        self.video_id = -1  # videos are refused
        self.patch = int(config.vision_config.patch_size)
        self.side = int(config.vision_config.image_size)
        self.grids = [list(grid) for grid in config.image_grid_pinpoints]
        self.class_token = config.vision_feature_select_strategy == "full"
        if self.class_token and tiles == "anyres":
            raise RenderError(
                "image_tiles='anyres' needs vision_feature_select_strategy='default': transformers cannot lay tiles out that "
                "carry a class token; use image_tiles='global'"
            )

    def images(self, images: list[PIL.Image.Image]) -> list[VisionBlock]:
        """Process images; each result depends on its image alone."""
        return [self._image(image) for image in images]

    def video(self, frames: Frames) -> VisionBlock:
        """Refuse: LLaVA-NeXT has no notion of time."""
        raise RenderError(
            "a LLaVA-NeXT backbone reads text and images, and an item holds a video; use a Qwen-VL backbone, or give frames as images"
        )

    def _image(self, image: PIL.Image.Image) -> VisionBlock:
        # The first of the crops is the whole image whatever the grid; one tile is the least that the processor cuts.
        grids = self.grids if self.tiles == "anyres" else [[self.side, self.side]]
        crops_TCHW = self.image_processor(images=[image], image_grid_pinpoints=grids, return_tensors="pt")["pixel_values"][0]
        if self.tiles == "global":
            crops_TCHW = crops_TCHW[:1]
        size = (image.height, image.width)
        across = self.side // self.patch
        pads = (self.image_id,) * self._tokens(size, across)
        return VisionBlock(IMAGE, to_patches(crops_TCHW, self.patch), (len(crops_TCHW), across, across), (pads,), image_size=size)

    def _tokens(self, size: tuple[int, int], across: int) -> int:
        """How many features transformers' model makes of an image of this (height, width)."""
        whole = across * across + self.class_token
        if self.tiles == "global":
            return whole + 1
        from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

        rows, columns = get_anyres_image_grid_shape(size, self.grids, self.side)
        kept = unpad_image(torch.empty(1, rows * across, columns * across, device="meta"), size)
        return whole + int(kept.shape[1]) * (int(kept.shape[2]) + 1)


def to_patches(crops_TCHW: torch.Tensor, patch: int) -> torch.Tensor:
    """Cut T square crops into patches, row by row: (T * H/patch * W/patch, C * patch * patch)."""
    crops, colours, height, width = crops_TCHW.shape
    cut = crops_TCHW.reshape(crops, colours, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, colours * patch * patch)


def to_crops(patches_PC: torch.Tensor, side: int, patch: int) -> torch.Tensor:
    """The crops that `to_patches` cut: (T, colours, side, side)."""
    across = side // patch
    colours = patches_PC.shape[1] // patch**2
    cut = patches_PC.reshape(-1, across, across, colours, patch, patch)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(-1, colours, side, side)
