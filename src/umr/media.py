"""Opening images and videos safely: size limits before decoding, one clear error naming the file, always upright RGB.

Limits are module constants; a program that must read larger images sets them (`umr.media.MAX_PIXELS = ...`), those of videos are in
`umr.video_files`. They are checked by this module alone and do not touch Pillow's own global limit.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from umr import video_files
from umr.errors import MediaError
from umr.frames import Frames, FrameSampling
from umr.media_files import check_file, check_size, read_file

__all__ = [
    "FrameSampling",
    "Frames",
    "check_image_source",
    "check_video_source",
    "image_bytes",
    "looks_like_heif",
    "open_image",
    "read_frames",
    "video_bytes",
]

if TYPE_CHECKING:
    import PIL.Image

    ImageSource: TypeAlias = Path | bytes | PIL.Image.Image
    VideoSource: TypeAlias = Path | Sequence[PIL.Image.Image]

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
"""What an image file may contain, whatever its name says. HEIF is read as well where pillow-heif is installed."""
MAX_PIXELS = 64_000_000
"""Width times height of an image; read from the header, before anything is decoded."""
MAX_JPEG_PIXELS = 200_000_000
"""The same of a JPEG that is stored line by line (not a progressive one), of which only what is kept is ever held."""
JPEG_PIXELS = 16_000_000
"""A JPEG file of more is decoded at a half, a quarter or an eighth of its width and height, the first that has no more: by 4 million
pixels and more, which is beyond what models look at, and in a fraction of time and memory. Part of what an embedding is."""
MAX_BYTES = 256 * 2**20
"""Size of an encoded image."""

_ORIENTATION = 0x0112
_JPEG = b"\xff\xd8\xff"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def check_image_source(source: object) -> None:
    """Raise `MediaError` unless `source` is a `Path`, bytes or a PIL image. A `str` is refused: it could be text."""
    if isinstance(source, str):
        raise MediaError(f"an image source must not be a str ({_shorten(source)}): write Path(...) for a file")
    if not isinstance(source, Path | bytes) and not _is_pil(source):
        raise MediaError(f"an image source must be a Path, bytes or a PIL image, not {type(source).__name__}")


def check_video_source(source: object) -> None:
    """Raise `MediaError` unless `source` is a `Path` or a non-empty sequence of PIL images."""
    if isinstance(source, Path):
        return
    if isinstance(source, str | bytes) or not isinstance(source, Sequence):
        raise MediaError(f"a video source must be a Path or a list of PIL images, not {type(source).__name__}: write Path(...) for a file")
    if not source:
        raise MediaError("a video needs at least one frame; the list is empty")
    if len(source) > video_files.MAX_VIDEO_FRAMES:
        raise MediaError(f"a video of {len(source)} frames is over the limit of {video_files.MAX_VIDEO_FRAMES}")
    for frame in source:
        if not _is_pil(frame):
            hint = ": write Path(...) for a file" if isinstance(frame, str) else ""
            raise MediaError(f"a video source must be a Path or a list of PIL images; a frame is a {type(frame).__name__}{hint}")


def open_image(source: ImageSource) -> PIL.Image.Image:
    """Decode an image: first frame, turned upright by its EXIF orientation, RGB, transparency on white.

    16-bit grey is scaled down to 8 bits; 32-bit and floating-point grey is stretched from its lowest to its highest
    value. The content decides the format, not the file name. Damaged EXIF data are ignored. A JPEG of over `JPEG_PIXELS` comes smaller.

    Args:
        source: a file, its bytes, or a PIL image, which is not changed (it is returned itself if nothing is to be done).

    Raises:
        MediaError: missing, unreadable, empty, truncated, not an image, or over `MAX_BYTES`, `MAX_PIXELS` or `MAX_JPEG_PIXELS`.
    """
    check_image_source(source)
    if _is_pil(source):
        return _decode(source, "a PIL image")  # type: ignore[arg-type]
    name = _name(source)
    if isinstance(source, Path):
        check_file(source, MAX_BYTES, "image")
        try:
            with source.open("rb") as file:
                return _open_and_decode(file, name)
        except OSError as error:
            raise MediaError(f"{name}: cannot be read ({error.strerror or error})") from error
    assert isinstance(source, bytes)
    check_size(len(source), MAX_BYTES, name, "image")
    return _open_and_decode(BytesIO(source), name)


def image_bytes(source: ImageSource) -> bytes:
    """Bytes that stand for an image in a content hash: the encoded file, or size and RGB pixels of a PIL image.

    Raises:
        MediaError: the file is missing, unreadable, empty or over `MAX_BYTES`.
    """
    check_image_source(source)
    if isinstance(source, Path):
        return read_file(source, MAX_BYTES, "image")
    if isinstance(source, bytes):
        check_size(len(source), MAX_BYTES, _name(source), "image")
        return source
    return _pixels(open_image(source))


def read_frames(source: VideoSource, fps: float, sampling: FrameSampling) -> Frames:
    """Decode a video and keep the frames that `sampling` asks for, upright and in RGB.

    Args:
        source: a file that PyAV reads, sampled by rate; or a list of frames, kept whole up to `sampling.max_frames`
            and thinned evenly above.
        fps: frames per second of a list; ignored for a file.
        sampling: which frames are kept.

    Raises:
        MediaError: the file is missing, damaged, truncated, without pictures or over a limit; or frames differ in size.
    """
    check_video_source(source)
    if isinstance(source, Path):
        return video_files.read_video_file(source, sampling)
    if not fps > 0:
        raise MediaError(f"a list of video frames needs a rate above zero, not {fps}")
    indices = sampling.thin(len(source))
    images = tuple(open_image(source[index]) for index in indices)
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise MediaError(f"the frames of a video must have one size; found {sorted(sizes)[:4]}")
    return Frames(images, float(fps), indices)


def video_bytes(source: VideoSource) -> bytes:
    """Bytes that stand for a video in a content hash: the encoded file, or size and pixels of every frame of a list."""
    check_video_source(source)
    if isinstance(source, Path):
        return read_file(source, video_files.MAX_VIDEO_BYTES, "video")
    return b"".join(_pixels(open_image(frame)) for frame in source)


# --- images


def _open_and_decode(file: Any, name: str) -> PIL.Image.Image:
    import PIL.Image

    head = file.read(12)
    file.seek(0)
    formats = _formats(head, name)
    try:
        image = _jpeg(file, name) if head.startswith(_JPEG) else PIL.Image.open(file, formats=formats)
    except MediaError:
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise MediaError(f"{name}: claims more than the limit of {MAX_PIXELS} pixels") from error
    except PIL.UnidentifiedImageError as error:
        raise MediaError(f"{name}: is not an image ({', '.join(formats)} can be read)") from error
    except Exception as error:  # Pillow's readers let many kinds through on hostile headers
        raise MediaError(f"{name}: is a damaged image ({error})") from error
    return _decode(image, name)


def _jpeg(file: Any, name: str) -> PIL.Image.Image:
    """A JPEG, not decoded yet, and set to be decoded smaller where it is large. Past `PIL.Image.open`, which warns of large photos."""
    import PIL
    from PIL.JpegImagePlugin import jpeg_factory

    try:
        image = jpeg_factory(file)
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as `PIL.Image.open` takes them
        raise PIL.UnidentifiedImageError(str(error)) from error
    width, height = image.size
    limit = MAX_PIXELS if image.info.get("progressive") else max(MAX_PIXELS, MAX_JPEG_PIXELS)
    _check_pixels(width, height, limit, name)
    scale = next((scale for scale in (1, 2, 4, 8) if (width // scale) * (height // scale) <= JPEG_PIXELS), 8)
    if scale > 1:
        image.draft(None, (width // scale, height // scale))
    return image


def looks_like_heif(head: bytes) -> bool:
    """Whether a file with these first bytes (12 are enough) is an image as phones write them: HEIC, or HEIF in general."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _formats(head: bytes, name: str) -> tuple[str, ...]:
    """`IMAGE_FORMATS`, and HEIF for a file that looks like it: its plugin takes a while to load, and is optional."""
    if not looks_like_heif(head):
        return IMAGE_FORMATS
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise MediaError(f"{name}: is a HEIC image; to read those, install pillow-heif") from error
    register_heif_opener()
    return (*IMAGE_FORMATS, "HEIF")


def _decode(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    _check_pixels(*image.size, MAX_PIXELS, name)
    try:
        image.load()
        return _to_rgb(_upright(image))
    except Exception as error:  # Pillow's decoders let many kinds through on hostile data
        raise MediaError(f"{name}: is damaged or truncated ({error})") from error


def _check_pixels(width: int, height: int, limit: int, name: str) -> None:
    if width * height > limit:
        raise MediaError(f"{name}: {width} x {height} is over the limit of {limit} pixels")
    if width * height == 0:
        raise MediaError(f"{name}: has no pixels ({width} x {height})")


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    from PIL import ImageOps

    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        # broken EXIF data are common in the wild, and the pixels are whole
        return image


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    import PIL.Image

    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith(("I", "F")):
        return _grey_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = PIL.Image.new("RGB", image.size, "white")
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat
    return image.convert("RGB")


def _grey_to_8_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    import numpy as np
    import PIL.Image

    grey_HW = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (float(grey_HW.min()), float(grey_HW.max()))
    scaled_HW = (grey_HW - low) * (255.0 / ((high - low) or 1.0))
    return PIL.Image.fromarray(np.rint(scaled_HW).astype(np.uint8))


def _pixels(image: PIL.Image.Image) -> bytes:
    return f"{image.width}x{image.height}:".encode() + image.tobytes()


# --- sources


def _is_pil(source: object) -> bool:
    pil = sys.modules.get("PIL.Image")  # whoever holds a PIL image has imported it
    return pil is not None and isinstance(source, pil.Image)


def _name(source: ImageSource) -> str:
    return str(source) if isinstance(source, Path) else "an image given as bytes"


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
