import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from umr import media, video_files
from umr.errors import MediaError
from umr.media import FrameSampling

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")  # what Pillow says of the damage done here on purpose


def gradient(width=12, height=8):
    pixels_HW3 = np.zeros((height, width, 3), np.uint8)
    pixels_HW3[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    pixels_HW3[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return PIL.Image.fromarray(pixels_HW3)


def saved(image, tmp_path, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def fails(source, *words):
    with pytest.raises(MediaError) as caught:
        media.open_image(source)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
    return message


def test_png_from_path_bytes_and_pil_are_the_same_pixels(tmp_path):
    path = saved(gradient(), tmp_path, "a.png")
    expected = gradient().tobytes()
    assert media.open_image(path).tobytes() == media.open_image(path.read_bytes()).tobytes() == expected
    with PIL.Image.open(path) as lazy:
        assert media.open_image(lazy).tobytes() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turned_image_comes_out_upright(tmp_path, orientation):
    upright = gradient(48, 32)
    turns = {
        1: None,
        2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
        3: PIL.Image.Transpose.ROTATE_180,
        4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
        5: PIL.Image.Transpose.TRANSPOSE,
        6: PIL.Image.Transpose.ROTATE_90,  # as stored by a camera held upright: turned back, it is a turn by 270
        7: PIL.Image.Transpose.TRANSVERSE,
        8: PIL.Image.Transpose.ROTATE_270,
    }
    stored = upright if turns[orientation] is None else upright.transpose(turns[orientation])
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tiff"):
        path = saved(stored, tmp_path, name, exif=exif)
        assert media.open_image(path).size == (48, 32)
        assert media.open_image(path).tobytes() == upright.tobytes()
    jpeg = media.open_image(saved(stored, tmp_path, "a.jpg", exif=exif, quality=95))
    assert np.abs(np.asarray(jpeg, int) - np.asarray(upright, int)).mean() < 6


def test_damaged_exif_does_not_cost_the_picture(tmp_path):
    path = saved(gradient(), tmp_path, "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x00\x01")
    assert media.open_image(path).size == (12, 8)


def test_transparency_is_laid_on_white(tmp_path):
    rgba = PIL.Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    assert list(media.open_image(saved(rgba, tmp_path, "a.png")).get_flattened_data()) == [(255, 0, 0), (255, 255, 255)]
    half = media.open_image(PIL.Image.new("LA", (1, 1), (0, 128))).getpixel((0, 0))
    assert half == (127, 127, 127)


def test_palette_with_a_transparent_colour(tmp_path):
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    assert media.open_image(saved(image, tmp_path, "a.png")).getpixel((1, 0)) == (0, 255, 0)
    path = saved(image, tmp_path, "b.png", transparency=1)
    assert list(media.open_image(path).get_flattened_data()) == [(255, 0, 0), (255, 255, 255)]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    grey = np.array([[0, 257 * 100, 65535]], np.uint16)
    for name in ("a.png", "a.tiff"):
        image = media.open_image(saved(PIL.Image.fromarray(grey), tmp_path, name))
        assert list(image.get_flattened_data()) == [(0, 0, 0), (100, 100, 100), (255, 255, 255)]


def test_floating_point_grey_is_stretched(tmp_path):
    path = saved(PIL.Image.fromarray(np.array([[-1.0, 0.0, 1.0]], np.float32)), tmp_path, "a.tiff")
    assert [pixel[0] for pixel in media.open_image(path).get_flattened_data()] == [0, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = saved(gradient().convert(mode), tmp_path, "a.tiff")
    image = media.open_image(path)
    assert image.mode == "RGB"
    assert image.size == (12, 8)


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    red = PIL.Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    r, g, b = media.open_image(saved(red, tmp_path, "a.jpg", quality=95)).getpixel((8, 8))
    assert r > 240
    assert max(g, b) < 15


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_content_decides_not_the_name(tmp_path, kind):
    path = saved(gradient(), tmp_path, "picture.png", format=kind)
    assert media.open_image(path).size == (12, 8)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    path = saved(frames[0], tmp_path, "a.gif", save_all=True, append_images=frames[1:])
    assert media.open_image(path).getpixel((0, 0)) == (255, 0, 0)


def bomb(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [60000, 8001])
def test_decompression_bomb_is_refused_from_its_header(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side, side))
    before = PIL.Image.MAX_IMAGE_PIXELS
    fails(path, path, media.MAX_PIXELS)
    assert before == PIL.Image.MAX_IMAGE_PIXELS


def test_bomb_is_refused_even_where_somebody_lifted_pillows_limit(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    fails(bomb(60000, 60000), "60000 x 60000")


def photo(width, height, quality=85, **options):
    """A JPEG with the four quarters of the picture in four colours."""
    image = PIL.Image.new("RGB", (width, height), (200, 40, 40))
    for colour, left, top in (((40, 160, 40), width // 2, 0), ((40, 40, 200), 0, height // 2), ((230, 220, 60), width // 2, height // 2)):
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality, **options)
    return data.getvalue()


def test_a_photo_of_forty_million_pixels_is_decoded_smaller(recwarn):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = media.open_image(photo(8000, 5000, exif=exif))
    assert image.size == (2500, 4000) and image.mode == "RGB"
    corners = [image.getpixel(place) for place in ((2400, 100), (2400, 3900), (100, 100), (100, 3900))]  # turned clockwise
    for found, wanted in zip(corners, [(200, 40, 40), (40, 160, 40), (40, 40, 200), (230, 220, 60)], strict=True):
        assert np.abs(np.subtract(found, wanted)).max() < 8
    assert not recwarn.list


@pytest.mark.parametrize(("most", "size"), [(3200, (80, 40)), (3199, (40, 20)), (799, (20, 10)), (100, (10, 5)), (10, (10, 5))])
def test_only_as_small_as_needed(monkeypatch, most, size):
    monkeypatch.setattr(media, "JPEG_PIXELS", most)
    data = photo(80, 40)
    image = media.open_image(data)
    assert image.size == size
    with PIL.Image.open(io.BytesIO(data)) as whole:
        means = whole.reduce(80 // size[0])
    assert np.abs(np.asarray(image, int) - np.asarray(means, int)).mean() < 3
    assert media.open_image(PIL.Image.open(io.BytesIO(data))).size == (80, 40)  # what a program holds already is taken as it is


@pytest.mark.parametrize("progressive", [False, True])
def test_limits_of_jpegs(monkeypatch, progressive):
    monkeypatch.setattr(media, "JPEG_PIXELS", 1000)
    monkeypatch.setattr(media, "MAX_PIXELS", 2000)
    monkeypatch.setattr(media, "MAX_JPEG_PIXELS", 4000)
    if progressive:  # its coefficients are held whole
        fails(photo(80, 40, progressive=True), "80 x 40 is over the limit of 2000")
    else:
        assert media.open_image(photo(80, 40)).size == (40, 20)
    fails(photo(80, 60, progressive=progressive), "80 x 60 is over the limit of")


def test_a_large_jpeg_that_is_cut_off_is_damaged(monkeypatch):
    monkeypatch.setattr(media, "JPEG_PIXELS", 1000)
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = io.BytesIO()
    noise.save(data, "JPEG")
    assert media.open_image(data.getvalue()).size == (16, 16)
    fails(data.getvalue()[: len(data.getvalue()) // 2], "damaged or truncated")


def test_too_many_bytes(tmp_path, monkeypatch):
    path = saved(gradient(), tmp_path, "a.png")
    monkeypatch.setattr(media, "MAX_BYTES", 20)
    fails(path, path, "over the limit of 20")
    fails(path.read_bytes(), "over the limit of 20")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.tiff", "a.bmp"])
def test_truncated_file(tmp_path, name):
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path = saved(noise, tmp_path, name)
    data = path.read_bytes()
    for length in (len(data) // 2, 30, 9):
        path.write_bytes(data[:length])
        fails(path, path)


def test_every_other_unusable_file_is_named(tmp_path):
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    fails(empty, empty, "empty")
    text = tmp_path / "text.png"
    text.write_text("not a picture at all")
    fails(text, text, "is not an image")
    fails(tmp_path, tmp_path, "directory")
    fails(tmp_path / "missing.png", "missing.png", "does not exist")
    fails(tmp_path / "nul\0.png", "nul")
    fails(b"", "empty")
    postscript = tmp_path / "a.eps"
    gradient().save(postscript)
    fails(postscript, "is not an image")


def test_random_damage_gives_media_errors_only(tmp_path):
    random = np.random.default_rng(1)
    for kind in media.IMAGE_FORMATS:
        buffer = io.BytesIO()
        gradient(40, 40).save(buffer, kind)
        for _ in range(40):
            data = bytearray(buffer.getvalue())
            for position in random.integers(0, len(data), 8):
                data[position] = random.integers(0, 256)
            with contextlib.suppress(MediaError):
                media.open_image(bytes(data))


def test_strings_are_refused_with_advice():
    with pytest.raises(MediaError, match=r"Path\("):
        media.check_image_source("a.png")
    with pytest.raises(MediaError, match=r"Path\("):
        media.check_video_source("a.mp4")
    with pytest.raises(MediaError, match="int"):
        media.check_image_source(3)


def test_bytes_for_hashing_follow_the_content(tmp_path):
    path = saved(gradient(), tmp_path, "a.png")
    assert media.image_bytes(path) == media.image_bytes(path.read_bytes()) == path.read_bytes()
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0])
    other = palette.copy()
    other.putpalette([0, 255, 0])
    assert media.image_bytes(palette) != media.image_bytes(other)
    assert media.image_bytes(gradient(6, 4)) != media.image_bytes(gradient(4, 6))
    with pytest.raises(MediaError, match="does not exist"):
        media.image_bytes(tmp_path / "no.png")


# --- videos


def write_video(path, count=48, rate=24, size=(64, 48)):
    """Frame `i` is a grey of brightness 5 * i, so that a decoded frame tells its own number."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 4_000_000
        for i in range(count):
            frame = av.VideoFrame.from_image(PIL.Image.new("RGB", size, (5 * i,) * 3))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(frames):
    return [round(np.asarray(image).mean() / 5) for image in frames.images]


def test_video_round_trip_gives_the_frames_asked_for(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    frames = media.read_frames(path, 24.0, FrameSampling(fps=4, max_frames=16))
    assert frames.fps == 24
    assert len(frames.images) == 8
    assert frames.indices[0] == 0
    assert frames.indices[-1] == 47
    assert numbers(frames) == list(frames.indices)
    assert frames.images[0].size == (64, 48)
    assert frames.images[0].mode == "RGB"
    assert frames.timestamps == tuple(i / 24 for i in frames.indices)


def test_phone_video_comes_out_upright(tmp_path):
    path = write_video(tmp_path / "a.mp4", count=4)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    one, none = 1 << 16, 0
    assert struct.unpack(">9i", data[start : start + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    data[start : start + 36] = struct.pack(">9i", none, one, 0, -one, none, 0, 48 << 16, 0, 1 << 30)  # a quarter turn clockwise
    path.write_bytes(data)
    assert media.read_frames(path, 24.0, FrameSampling()).images[0].size == (48, 64)


def test_turn_of_a_video_is_in_the_right_direction(tmp_path):
    import av

    path = tmp_path / "a.mp4"
    stored = PIL.Image.new("RGB", (64, 48), "black")
    stored.paste("white", (0, 0, 32, 48))  # the left half; after a clockwise turn it is the upper half
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_image(stored)))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(data)
    image = media.read_frames(path, 24.0, FrameSampling()).images[0]
    assert image.getpixel((24, 8))[0] > 200
    assert image.getpixel((24, 56))[0] < 50


def test_video_files_that_cannot_be_used(tmp_path, monkeypatch):
    def refused(path, words):
        with pytest.raises(MediaError, match=words) as caught:
            media.read_frames(path, 24.0, FrameSampling())
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    good = write_video(tmp_path / "good.mp4", count=8)
    refused(tmp_path / "missing.mp4", "does not exist")
    refused(tmp_path, "directory")
    (tmp_path / "empty.mp4").write_bytes(b"")
    refused(tmp_path / "empty.mp4", "empty")
    (tmp_path / "text.mp4").write_text("not a film" * 100)
    refused(tmp_path / "text.mp4", "not a video")
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:-300])
    refused(tmp_path / "cut.mp4", "not a video")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{good}\n#EXT-X-ENDLIST\n")
    refused(tmp_path / "list.m3u8", "not a video")
    gradient().save(tmp_path / "picture.mp4", "PNG")
    refused(tmp_path / "picture.mp4", "not a video")
    monkeypatch.setattr(video_files, "MAX_VIDEO_FRAMES", 5)
    refused(good, "limit of 5 frames")
    monkeypatch.setattr(video_files, "MAX_FRAME_PIXELS", 100)
    refused(good, "limit of 100 pixels")
    monkeypatch.setattr(video_files, "MAX_VIDEO_BYTES", 100)
    refused(good, "limit of 100")


def test_long_video_is_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", count=24)
    monkeypatch.setattr(video_files, "MAX_VIDEO_SECONDS", 0.5)
    with pytest.raises(MediaError, match="lasts 1 s"):
        media.read_frames(path, 24.0, FrameSampling())


def test_frame_list_is_kept_whole_up_to_the_limit_and_thinned_above():
    images = [PIL.Image.new("L", (4, 4), i) for i in range(21)]
    whole = media.read_frames(images[:5], 8.0, FrameSampling(max_frames=5, even=False))
    assert whole.indices == (0, 1, 2, 3, 4)
    assert whole.fps == 8.0
    thin = media.read_frames(images, 8.0, FrameSampling(max_frames=6))
    assert thin.indices == (0, 4, 8, 12, 16, 20)
    assert [image.getpixel((0, 0))[0] for image in thin.images] == list(thin.indices)


def test_frame_lists_that_cannot_be_used():
    with pytest.raises(MediaError, match="at least one frame"):
        media.check_video_source(())
    with pytest.raises(MediaError, match="str"):
        media.check_video_source(("a", "b"))
    with pytest.raises(MediaError, match="one size"):
        media.read_frames((gradient(), gradient(5, 5)), 24.0, FrameSampling())
    with pytest.raises(MediaError, match="rate above zero"):
        media.read_frames((gradient(),), 0.0, FrameSampling())


@pytest.mark.parametrize(
    "arguments",
    [{"fps": 0}, {"min_frames": 0}, {"min_frames": 9, "max_frames": 8}, {"min_frames": 1, "max_frames": 1}],
)
def test_contradictory_sampling_is_refused(arguments):
    with pytest.raises(MediaError, match="frame sampling"):
        FrameSampling(**arguments)


def test_sampling_indices():
    assert FrameSampling(fps=1).indices(1, 24) == (0,)
    assert FrameSampling(fps=1).indices(2, 24) == (0, 1)
    assert len(FrameSampling(fps=1).indices(24 * 5, 24)) == 4  # five seconds, an even number
    assert len(FrameSampling(fps=1, even=False).indices(24 * 5, 24)) == 5
    assert FrameSampling(fps=1, min_frames=1, even=False).indices(3, 24) == (0,)
    assert FrameSampling(fps=2, max_frames=16).indices(10_000, 25)[-1] == 9_999
    for total in range(1, 60):
        kept = FrameSampling().indices(total, 7.0)
        assert len(set(kept)) == len(kept)
        assert list(kept) == sorted(kept)
        assert kept[-1] < total


def test_video_bytes(tmp_path):
    path = write_video(tmp_path / "a.mp4", count=2)
    assert media.video_bytes(path) == Path(path).read_bytes()
    assert media.video_bytes((gradient(),)) != media.video_bytes((gradient(), gradient()))
