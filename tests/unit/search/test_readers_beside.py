"""Images with something beside them, and what becomes of files that are read together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from umr.errors import DataError
from umr.search.folder import folder_units
from umr.search.readers import captions
from umr.search.readers.piece import Done, Piece
from umr.search.units import Reading
from unit.search import small_files as small


def read(root: Path, reading: Reading | None = None) -> tuple[dict[str, Piece], dict[str, Done]]:
    """Pieces by id, and ends by file, of everything in a folder."""
    events = [event for unit in folder_units(root, reading or Reading())[0] for event in unit.read()]
    pieces = [event for event in events if isinstance(event, Piece)]
    ends = [event for event in events if isinstance(event, Done)]
    assert len({end.source for end in ends}) == len(ends) == sum(path.is_file() for path in root.rglob("*"))
    return {piece.id: piece for piece in pieces}, {end.source: end for end in ends}


def write(root: Path, **files: bytes | str) -> None:
    for name, data in files.items():
        (root / name.replace("_", ".")).write_bytes(data.encode() if isinstance(data, str) else data)


def test_a_caption_and_fields_go_with_their_image(tmp_path: Path) -> None:
    write(tmp_path, a_jpg=small.image(1, "JPEG"), a_txt="a red\n boat\n", a_json=b'{"year": 1999, "caption": "no", "gps": {"lat": 1.5}}')
    pieces, ends = read(tmp_path)
    assert list(pieces) == ["a.jpg"]
    assert (pieces["a.jpg"].item.modality, pieces["a.jpg"].text) == ("image,text", "a red boat")
    assert pieces["a.jpg"].metadata == {"year": 1999, "gps.lat": 1.5}
    assert ends["a.txt"].serves == ends["a.json"].serves == ("a.jpg",)
    assert not any(end.reason for end in ends.values())


def test_a_json_alone_gives_caption_and_fields(tmp_path: Path) -> None:
    write(tmp_path, a_png=small.image(1), a_json=small.fields(4))
    pieces, _ = read(tmp_path)
    assert pieces["a.png"].text == small.words(4, 4)
    assert pieces["a.png"].metadata == {"year": 1994, "camera.iso": 100}


def test_without_captions_everything_is_by_itself(tmp_path: Path) -> None:
    write(tmp_path, a_jpg=small.image(1, "JPEG"), a_txt="a red boat")
    pieces, _ = read(tmp_path, Reading(captions=False))
    assert {id: piece.item.modality for id, piece in pieces.items()} == {"a.jpg": "image", "a.txt#chunk=1": "text"}


def test_two_images_of_one_stem_share_their_caption(tmp_path: Path) -> None:
    write(tmp_path, a_jpg=small.image(1, "JPEG"), a_png=small.image(2), a_txt="a red boat")
    pieces, ends = read(tmp_path)
    assert {id: piece.text for id, piece in pieces.items()} == {"a.jpg": "a red boat", "a.png": "a red boat"}
    assert ends["a.txt"].serves == ("a.jpg", "a.png")


@pytest.mark.parametrize(
    ("image", "reason"),
    [(lambda: small.image(1, "JPEG")[:-200], "damaged"), (lambda: b"", "empty"), (lambda: b"really a text", "")],
)
def test_beside_what_is_no_image_a_text_is_a_text(tmp_path: Path, image: Callable[[], bytes], reason: str) -> None:
    write(tmp_path, a_jpg=image(), a_txt="a red boat")
    pieces, ends = read(tmp_path)
    assert pieces["a.txt#chunk=1"].text == "a red boat"
    assert ("a.jpg#chunk=1" in pieces) == (reason == "")
    assert reason in ends["a.jpg"].reason


def test_a_long_text_beside_an_image_is_a_text_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, a_jpg=small.image(1, "JPEG"), a_txt="many words " * 500)
    pieces, ends = read(tmp_path)
    assert pieces["a.jpg"].item.modality == "image"
    assert "a.txt#chunk=2" in pieces
    assert ends["a.txt"].serves == ()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a_json", b"[1, 2]", "holds a list"),
        ("a_json", b"{", "no JSON"),
        ("a_json", b'{"n": 1e999}', "finite"),
        ("a_json", b'{"caption": "\\ud800"}', "caption"),
        ("a_txt", b"caf\xe9", "neither UTF-8"),
        ("a_txt", b" \n", "without text"),
    ],
)
def test_a_broken_caption_does_not_cost_the_image(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    write(tmp_path, a_jpg=small.image(1, "JPEG"), **{name: data})
    pieces, ends = read(tmp_path)
    assert pieces["a.jpg"].item.modality == "image"
    assert not ends["a.jpg"].reason
    assert reason in ends[name.replace("_", ".")].reason


def test_fields_take_the_form_that_rows_keep() -> None:
    told = {"a": None, "b": [1, {"c": 2}, "x"], "d": {"e": {"f": True}}, "": 3, "g": 1.5}
    assert captions.flat(told) == {"b": ["1", '{"c": 2}', "x"], "d.e.f": True, "g": 1.5}
    with pytest.raises(DataError, match="one value"):
        captions.fields_of(b"3")
    assert captions.fields_of(b'{"title": "t", "text": "x", "caption": 3}') == ("x", {"title": "t", "caption": 3})
