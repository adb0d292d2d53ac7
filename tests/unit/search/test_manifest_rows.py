"""Manifests: one row, one item; paths stay inside; what is wrong is told with file and line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umr.errors import DataError
from umr.items import Item
from umr.search.manifest_rows import is_manifest, manifest_units
from umr.search.readers.piece import Done, Piece
from unit.search import small_files as small


def manifest(folder: Path, *lines: dict[str, Any] | str) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def read(path: Path) -> tuple[dict[str, Piece], dict[str, str]]:
    """Pieces by id, and reasons by name."""
    events = [event for unit in manifest_units(path) for event in unit.read()]
    pieces = {event.id: event for event in events if isinstance(event, Piece)}
    return pieces, {event.source: event.reason for event in events if isinstance(event, Done)}


@pytest.fixture
def media(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "1.jpg").write_bytes(small.image(1, "JPEG"))
    (tmp_path / "film.mp4").write_bytes(small.video(1))
    return tmp_path


ROWS: list[dict[str, Any]] = [
    {"id": "t", "text": "only words"},
    {"id": "shoe#17 50%", "text": "a red shoe", "image": "img/1.jpg", "metadata": {"price": 80}, "colour": "red"},
    {"id": 3, "image": "img/../img/1.jpg"},
    {"id": "film", "video": "film.mp4", "text": "a film"},
]


def test_each_row_is_one_item_under_its_own_id(media: Path) -> None:
    pieces, reasons = read(manifest(media, *ROWS))
    assert {id: piece.item.modality for id, piece in pieces.items()} == {
        "t": "text",
        "shoe#17 50%": "image,text",
        "3": "image",
        "film": "video,text",
    }
    shoe = pieces["shoe#17 50%"]
    assert (shoe.source, shoe.media, shoe.metadata, shoe.text) == (shoe.id, "img/1.jpg", {"price": 80, "colour": "red"}, "a red shoe")
    assert shoe.digest == Item.of(image=media / "img" / "1.jpg", text="a red shoe").digest
    assert pieces["3"].media == "img/1.jpg"
    assert (pieces["film"].start, pieces["film"].end) == (0.0, 2.0)
    assert set(reasons.values()) == {""}


def test_parquet_says_the_same_as_jsonl(media: Path) -> None:
    rows = [{**row, "id": str(row["id"]), "metadata": json.dumps(row["metadata"]) if "metadata" in row else None} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([(n, pa.string()) for n in (*ROWS[1], "video")])), media / "items.parquet")
    pieces, reasons = read(media / "items.parquet")
    expected, _ = read(manifest(media, *ROWS))
    assert {id: (piece.digest, piece.metadata) for id, piece in pieces.items()} == {
        id: (piece.digest, piece.metadata) for id, piece in expected.items()
    }
    assert set(reasons.values()) == {""}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "no JSON"),
        ("[1]", "not a JSON object"),
        ({"text": "x"}, "has no id"),
        ({"id": "a"}, "nothing to index"),
        ({"id": "a", "image": 3}, "not a path"),
        ({"id": "a", "image": "../secret.jpg"}, "outside the manifest's folder"),
        ({"id": "a", "image": "/etc/passwd"}, "outside the manifest's folder"),
        ({"id": "a", "image": "out/secret.jpg"}, "outside the manifest's folder"),
        ({"id": "a", "image": "x\0y"}, "is no path"),
        ({"id": "a", "image": "img/1.jpg", "video": "film.mp4"}, "make two rows"),
        ({"id": "a", "text": "x", "metadata": 3}, "not an object"),
        ({"id": "a", "text": "x", "n": 2**70}, "64 bits"),
        ({"id": "a", "text": "\ud800"}, "'text'"),
        ({"id": "t", "text": "again"}, "of row 1"),
    ],
)
def test_a_row_without_sense_is_named_by_its_line(media: Path, row: dict[str, Any] | str, reason: str) -> None:
    (media / "out").symlink_to(media.parent)
    path = manifest(media, ROWS[0], "", row, {"id": "after", "text": "still there"})
    pieces, reasons = read(path)
    assert list(pieces) == ["t", "after"]
    assert reason in reasons["items.jsonl:3"]
    assert len(reasons) == 3


@pytest.mark.parametrize(("image", "reason"), [("gone.jpg", "No such file"), ("film.mp4", "is not an image"), ("img", "no regular file")])
def test_media_that_cannot_be_read_reject_their_row(media: Path, image: str, reason: str) -> None:
    pieces, reasons = read(manifest(media, {"id": "a", "image": image}))
    assert pieces == {}
    assert reason in reasons["a"]


def test_a_changed_row_or_file_changes_the_unit(media: Path) -> None:
    def states() -> list[tuple[str, int]]:
        return [(unit.tag, unit.files[0].modified_ns) for unit in manifest_units(media / "items.jsonl")]

    manifest(media, *ROWS)
    first = states()
    manifest(media, *ROWS[:1], {**ROWS[1], "text": "a RED shoe"}, *ROWS[2:])
    second = states()
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True, True]
    os.utime(media / "film.mp4", ns=(1, 1))
    assert [a == b for a, b in zip(second, states(), strict=True)] == [True, True, True, False]


def test_a_manifest_is_known_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    assert is_manifest(tmp_path / "a.JSONL")
    assert is_manifest(tmp_path / "a.parquet")
    assert not is_manifest(tmp_path)
    assert not is_manifest(tmp_path / "folder.jsonl")
    with pytest.raises(DataError, match=r"nothing\.jsonl: cannot be read"):
        manifest_units(tmp_path / "nothing.jsonl")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 rubbish")
    with pytest.raises(DataError, match="as Parquet"):
        manifest_units(tmp_path / "a.parquet")
