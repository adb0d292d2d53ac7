"""Images, PDFs and videos: pieces with their place, made again alike, and one line for each way of being broken."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from umr.errors import DataError, MediaError
from umr.items import Item
from umr.search.readers import images, kinds, pdf, pdf_worker, videos
from umr.search.readers.images import Caption, Picture
from umr.search.readers.piece import THUMBNAIL, LeftOut, Piece, piece_id, thumbnail
from umr.search.reopening import reopen
from umr.search.rows import Row
from unit.search import small_files as small


def saved(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def as_row(piece: Piece) -> Row:
    return Row(piece.id, piece.source, piece.item.modality, piece.digest, None, piece.text, piece.media, piece.page, piece.start, piece.end)


# --- kinds


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        *[("image", small.image(1, name)) for name in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF")],
        ("pdf", small.pdf("a")),
        ("pdf", b"\n junk before \n" + small.pdf("a")),
        ("video", small.video(1)),
        ("video", small.video(1, 3.0, ".mkv")),
        ("video", small.video(1, 2.0, ".avi")),
        ("text", "naïve".encode()),
        ("text", "naïve".encode("utf-16")),
        ("text", "naïve".encode("latin-1")),  # the reader of texts says what is wrong with it
    ],
)
def test_content_tells_the_kind(kind: str, data: bytes) -> None:
    assert kinds.kind_of(data[: kinds.HEAD]) == kind


@pytest.mark.parametrize(
    ("word", "data"),
    [
        ("AVIF", b"\0\0\0\x20ftypavif" + bytes(20)),
        ("empty", b""),
        ("zip archive", b"PK\x03\x04\0\0"),
        ("zero bytes", bytes(50)),
        ("unknown kind", bytes(range(99))),
    ],
)
def test_what_cannot_be_read_is_named(word: str, data: bytes) -> None:
    assert word in kinds.kind_of(data)


# --- images


def test_an_image_with_its_caption_is_one_item() -> None:
    data = small.image(3, "JPEG")
    (piece,) = images.read("a b.jpg", Picture.decode(data), Caption("a red boat", {"year": 1999}))
    assert (piece.id, piece.media, piece.text, piece.metadata) == ("a b.jpg", "a b.jpg", "a red boat", {"year": 1999})
    assert piece.item.modality == "image,text"
    assert piece.digest == Item.of(image=data, text="a red boat").digest
    (alone,) = images.read("a b.jpg", Picture.decode(data))
    assert (alone.item.modality, alone.digest) == ("image", Item.of(image=data).digest)


def test_a_photo_held_sideways_has_an_upright_thumbnail() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    small.picture(1, 900, 600).save(buffer, format="JPEG", exif=exif)
    (piece,) = images.read("a.jpg", Picture.decode(buffer.getvalue()))
    with PIL.Image.open(io.BytesIO(piece.thumbnail)) as made:
        assert (made.format, made.size) == ("WEBP", (round(THUMBNAIL * 2 / 3), THUMBNAIL))


def test_heic_is_read_where_its_plugin_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small.image(5, "HEIF")
    (piece,) = images.read("a.heic", Picture.decode(data))
    pixels = np.asarray(piece.item.parts[0].open(), int)
    assert np.abs(pixels - np.asarray(small.picture(5), int)).mean() < 12
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(MediaError, match="install pillow-heif"):
        Picture.decode(data)
    monkeypatch.undo()
    with pytest.raises(MediaError, match="HEIF can be read"):
        Picture.decode(data[:200])


def test_thumbnails_of_any_shape() -> None:
    for size in ((1, 1), (5000, 3), (3, 5000), (256, 256)):
        with PIL.Image.open(io.BytesIO(thumbnail(PIL.Image.new("RGB", size)))) as made:
            assert max(made.size) <= THUMBNAIL


def test_ids_are_never_shared() -> None:
    assert piece_id("a.pdf", "page=3") == "a.pdf#page=3"
    assert len({piece_id("a#page=1"), piece_id("a", "page=1"), piece_id("a%23page=1")}) == 3


# --- PDFs


def pages(folder: Path, data: bytes) -> list[Piece | LeftOut]:
    with saved(folder, "a.pdf", data).open("rb") as file:
        return list(pdf.read("a.pdf", file))


def test_every_page_is_a_picture_with_its_text(tmp_path: Path) -> None:
    found = pages(tmp_path, small.pdf("Hello world", "Second page", sizes=[(595, 842), (100, 50)]))
    assert [(piece.id, piece.page, piece.text) for piece in found] == [
        ("a.pdf#page=1", 1, "Hello world"),
        ("a.pdf#page=2", 2, "Second page"),
    ]
    assert all(piece.item.modality == "image,text" for piece in found)
    first, second = (piece.item.parts[0].open() for piece in found)
    assert abs(first.width * first.height / pdf.PIXELS - 1) < 0.01
    assert second.size == (400, 200)  # small pages are not blown up without end
    assert np.asarray(first).min() < 50 < 250 < np.asarray(first).max()
    for piece in found:
        assert reopen(as_row(piece), tmp_path / "a.pdf").digest == piece.digest


def test_absurd_pages_cost_no_memory_and_spare_the_others(tmp_path: Path) -> None:
    found = pages(tmp_path, small.pdf("a", "b", "c", sizes=[(200_000, 200_000), (1e7, 1), (200, 100)]))
    kinds_found = [type(event).__name__ for event in found]
    assert kinds_found == ["Piece", "LeftOut", "Piece"]
    assert found[0].pixels <= 1.01 * pdf.PIXELS
    assert "page 2" in found[1].reason
    assert "too narrow" in found[1].reason


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("password", lambda: small.pdf("a", encrypted=True)),
        ("damaged", lambda: small.pdf("a")[:100]),
        ("damaged", lambda: b"%PDF-1.7\n" + bytes(range(256))),
        ("damaged", lambda: small.pdf()),
    ],
)
def test_broken_pdfs_are_named(tmp_path: Path, words: str, make: Callable[[], bytes]) -> None:
    with pytest.raises(DataError, match=words):
        pages(tmp_path, make())


def test_a_page_that_kills_its_process_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is real and dies for real, at the second page of whatever it reads."""
    killer = tmp_path / "killer.py"
    killer.write_text(
        "import os, sys\n"
        "from umr.search.readers import pdf_worker\n"
        "drawn = pdf_worker._page\n"
        "def deadly(document, number, *rest):\n"
        f"    os.kill(os.getpid(), {int(signal.SIGKILL)}) if number == 2 else drawn(document, number, *rest)\n"
        "pdf_worker._page = deadly\n"
        "pdf_worker.main(int(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer, sys.stdout.buffer)\n"
    )
    monkeypatch.setattr(pdf, "_COMMAND", [str(killer)])
    found = pages(tmp_path, small.pdf("one", "two", "three"))
    assert [getattr(event, "page", None) for event in found] == [1, None, 3]
    assert found[1].reason == "page 2 took too much time or memory"


def test_the_process_lives_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[int, int] = {}
    monkeypatch.setattr(pdf_worker.resource, "setrlimit", lambda what, both: limits.__setitem__(what, both[0]))
    out = io.BytesIO()
    pdf_worker.main(1, 1000, io.BytesIO(small.pdf("a")), out)
    assert limits[pdf_worker.resource.RLIMIT_AS] == pdf_worker.MEMORY
    assert 0 < limits[pdf_worker.resource.RLIMIT_CPU] < 10_000
    assert out.getvalue().startswith(b'{"pages": 1}\n')


# --- videos


def clips(folder: Path, data: bytes, seconds: float = 10.0) -> list[Piece]:
    with saved(folder, "a.video", data).open("rb") as file:
        return [event for event in videos.read("a.mp4", file, seconds) if isinstance(event, Piece)]


def frame_numbers(piece: Piece) -> list[int]:
    return [round(float(np.asarray(frame)[16:, 16:].mean()) / 8) for frame in piece.item.parts[0].source]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_clips_cover_the_time_with_frames_of_their_own(tmp_path: Path, suffix: str) -> None:
    found = clips(tmp_path, small.video(1, 6.5, suffix), seconds=2.0)
    assert [piece.id for piece in found] == ["a.mp4#t=0-2", "a.mp4#t=2-4", "a.mp4#t=4-6.5"]
    assert [(piece.start, piece.end) for piece in found] == [(0, 2), (2, 4), (4, 6.5)]
    assert [frame_numbers(piece)[0] for piece in found] == [0, 8, 16]  # four frames a second
    assert [frame_numbers(piece)[-1] for piece in found] == [7, 15, 25]
    for piece in found:
        assert reopen(as_row(piece), tmp_path / "a.video").digest == piece.digest
        assert len(piece.thumbnail) > 20


def test_frame_rates_tell_the_real_time(tmp_path: Path) -> None:
    (piece,) = clips(tmp_path, small.video(1, 7.0), seconds=float("inf"))
    video = piece.item.parts[0]
    assert piece.id == "a.mp4"
    assert abs((len(video.source) - 1) / video.fps - 6.75) < 1e-3  # from the first frame to the last


def test_large_frames_are_kept_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "FRAME_PIXELS", 256)
    (piece,) = clips(tmp_path, small.video(2))
    assert {frame.size for frame in piece.item.parts[0].source} == {(16, 16)}


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("truncated", lambda: small.video(1)[:600]),
        ("sound but no pictures", small.sound),
        ("not a video that can be read", lambda: b"\x1aE\xdf\xa3" + bytes(100)),
        ("not a video that can be read", lambda: b"#EXTM3U\nhttp://127.0.0.1/a.ts\n"),
    ],
)
def test_broken_videos_are_named(tmp_path: Path, words: str, make: Callable[[], bytes]) -> None:
    with pytest.raises(MediaError, match=words) as caught:
        clips(tmp_path, make())
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("MOST_SECONDS", 1.0), ("MOST_FRAMES", 3), ("MOST_BYTES", 100)])
def test_videos_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    monkeypatch.setattr(videos, name, value)
    with pytest.raises((MediaError, DataError), match="limit"):
        clips(tmp_path, small.video(1))
