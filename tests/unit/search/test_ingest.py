"""Indexing a folder: everything ends somewhere, nothing is done twice, and a kill changes nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import embedder
from umr.errors import DataError
from umr.items import Item
from umr.progress import quiet
from umr.search import ahead, folder, ingest, units
from umr.search.ahead import reading_ahead
from umr.search.ingest import Counts, index_folder, index_units
from umr.search.lance import LanceTable
from umr.search.manifest_rows import manifest_units
from umr.search.readers import opening
from umr.search.readers.piece import Done, Event, Piece, item_of
from umr.search.reopening import reopen
from umr.search.rows import Row, SourceFile
from umr.search.table import Table
from umr.search.units import Reading, Unit
from umr.search.walk import Found, real
from unit.search import small_files as small
from unit.search.index_in_pieces import table_of
from unit.search.memory_table import MemoryTable
from unit.search.mixed_folder import write_mixed
from unit.search.seeing_encoder import SeeingEncoder

TESTS = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def files_of(table: Table) -> dict[str, SourceFile]:
    return {file.path: file for file in table.files()}


def rows_of(table: Table) -> dict[str, Row]:
    ids = [id for batch in table.scan(["id"]) for id in batch["id"].to_pylist()]
    return {row.id: row for row in table.rows(sorted(ids), vectors=True)}


def same_rows(one: Table, other: Table) -> None:
    """Equal to the last bit of the vectors."""
    mine, yours = rows_of(one), rows_of(other)
    assert list(mine) == list(yours)
    for id, row in mine.items():
        assert row.vector_D.tobytes() == yours[id].vector_D.tobytes(), id  # type: ignore[union-attr]
        assert replace(row, vector_D=None) == replace(yours[id], vector_D=None)
    assert files_of(one) == files_of(other)


def write(root: Path, name: str, data: bytes | str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def small_folder(root: Path) -> Path:
    write(root, "a.jpg", small.image(1, "JPEG"))
    write(root, "a.txt", "a red boat")
    write(root, "notes/b.md", "# Trees\n\n" + "green tree words " * 100)
    write(root, "c.pdf", small.pdf("one page", "another page"))
    write(root, "d.mp4", small.video(1))
    write(root, "e.png", b"")
    return root


# --- counting


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_tried_again(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "words")
    path.chmod(0)
    table = MemoryTable()
    index_folder(tmp_path, table, SeeingEncoder())
    assert "Permission denied" in files_of(table)["a.txt"].reason
    path.chmod(0o644)
    assert index_folder(tmp_path, table, SeeingEncoder()).indexed == 1


def test_of_mixed_files_each_ends_as_it_must(tmp_path: Path) -> None:
    mixed = write_mixed(tmp_path / "files", 80, broken=0.2)
    (mixed.root / ".hidden.txt").write_text("words")
    (mixed.root / "link.png").symlink_to("/etc/passwd")
    table = LanceTable.create(tmp_path / "collection", SeeingEncoder.dimension)
    counts = index_folder(mixed.root, table, SeeingEncoder())
    found = {os.fsencode(real(file.path)): file for file in table.files()}
    fine = {**mixed.expected, b".hidden.txt": False, b"link.png": False}
    assert {name: file.status == "indexed" for name, file in found.items()} == fine
    assert (counts.files, counts.indexed + counts.rejected) == (82, 82)
    assert counts.rejected == 2 + sum(not good for good in mixed.expected.values())
    assert all(bool(file.reason) == (file.status == "rejected") and "\n" not in file.reason for file in found.values())
    rows = rows_of(table)
    assert counts.rows == len(rows) == sum(file.rows for file in found.values()) == counts.embedded + counts.reused
    for row in rows.values():
        assert (row.media == "") == (row.modality == "text")
        assert row.media == "" or (mixed.root / real(row.media)).is_file()
        assert abs(float(np.linalg.norm(row.vector_D.astype(np.float32))) - 1) < 1e-2  # type: ignore[union-attr]


def test_what_the_model_refuses_is_rejected_with_its_words(tmp_path: Path) -> None:
    small_folder(tmp_path)
    table, encoder = MemoryTable(), SeeingEncoder(("text", "image"))
    counts = index_folder(tmp_path, table, encoder)
    assert files_of(table)["d.mp4"].reason == "t=0-2: holds video, which this model does not take"
    assert (counts.indexed, counts.rejected) == (4, 2)
    again = index_folder(tmp_path, table, encoder)
    assert (again.unchanged, again.embedded) == (6, 0)


def test_a_model_of_texts_finds_by_text_what_has_one(tmp_path: Path) -> None:
    small_folder(tmp_path)
    write(tmp_path, "f.png", small.image(4))
    table, encoder = MemoryTable(), SeeingEncoder(("text",))
    counts = index_folder(tmp_path, table, encoder)
    found, rows = files_of(table), rows_of(table)
    assert found["c.pdf"].reason == "2 of 2 parts found by text only: page=1: holds image, which this model does not take"
    assert found["a.jpg"].reason == "1 of 1 parts found by text only: holds image, which this model does not take"
    assert found["f.png"].reason == "holds image, which this model does not take"
    assert {path for path, file in found.items() if file.status == "rejected"} == {"d.mp4", "e.png", "f.png"}
    page = rows["c.pdf#page=2"]
    assert (page.modality, page.media, page.digest) == ("text", "c.pdf", Item.of(text="another page").digest)
    assert bool(page.thumbnail)
    assert counts.rows == counts.embedded == 3 + sum(id.startswith("notes") for id in rows)


def test_a_caption_ends_as_its_image(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", small.image(1, "JPEG"))
    write(tmp_path, "a.txt", "a red boat")
    table = MemoryTable()
    index_folder(tmp_path, table, SeeingEncoder(()))
    assert files_of(table)["a.txt"].reason == "is the caption of a.jpg, which was rejected"


def test_a_file_that_gives_only_a_part_says_so(tmp_path: Path) -> None:
    write(tmp_path, "a.pdf", small.pdf("a", "b", sizes=[(200, 100), (1e7, 1)]))
    table = MemoryTable()
    index_folder(tmp_path, table, SeeingEncoder())
    record = files_of(table)["a.pdf"]
    assert (record.status, record.rows) == ("indexed", 1)
    assert record.reason.startswith("1 of 2 parts left out: page 2 of 10000000 x 1 points")


def test_a_reader_that_fails_unforeseen_rejects_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_folder(tmp_path)

    def broken(*arguments: Any) -> Iterator[Piece]:
        raise IndexError("deep inside\nof a library")

    monkeypatch.setattr(folder.pdf, "read", broken)
    table = MemoryTable()
    assert index_folder(tmp_path, table, SeeingEncoder()).indexed == 4
    assert files_of(table)["c.pdf"].reason == "cannot be read (IndexError: deep inside)"
    monkeypatch.undo()
    assert index_folder(tmp_path, table, SeeingEncoder()).indexed == 5  # it is tried again


def test_a_vector_without_direction_is_refused(tmp_path: Path) -> None:
    class Broken(SeeingEncoder):
        def _encode(self, item: Item) -> Any:
            return super()._encode(item) * (np.nan if "boat" in item.text else 1)

    small_folder(tmp_path)
    table = MemoryTable()
    index_folder(tmp_path, table, Broken())
    assert files_of(table)["a.jpg"].reason == "the model's vector has length nan instead of 1"


# --- again


def test_unchanged_files_are_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_folder(tmp_path)
    table, encoder = MemoryTable(), SeeingEncoder()
    first = index_folder(tmp_path, table, encoder)

    def refuse(*arguments: Any) -> int:
        raise AssertionError("opened")

    monkeypatch.setattr(opening.os, "open", refuse)
    version = table.version()
    second = index_folder(tmp_path, table, encoder)
    assert (second, table.version()) == (replace(first, unchanged=6, embedded=0, reused=0), version)


def changed(root: Path, table: Table, **options: Any) -> tuple[set[str], Counts]:
    """Ids that the model was given, and the counts."""
    encoder = SeeingEncoder()
    counts = index_folder(root, table, encoder, **options)
    return set(encoder.seen), counts


def test_only_what_is_new_is_embedded(tmp_path: Path) -> None:
    root = small_folder(tmp_path / "files")
    table = LanceTable.create(tmp_path / "collection", SeeingEncoder.dimension)
    first = rows_of(table) if changed(root, table) else {}

    os.utime(root / "c.pdf", ns=(1, 1))  # touched
    (root / "d.mp4").rename(root / "notes" / "d again.mp4")  # renamed
    (root / "f.md").write_bytes((root / "notes" / "b.md").read_bytes())  # copied
    seen, counts = changed(root, table)
    assert (seen, counts.embedded, counts.reused, counts.forgotten) == (set(), 0, 5, 1)
    found = rows_of(table)
    assert found["notes/d again.mp4#t=0-2"].vector_D.tobytes() == first["d.mp4#t=0-2"].vector_D.tobytes()  # type: ignore[union-attr]
    assert "d.mp4#t=0-2" not in found
    assert changed(root, table)[1].unchanged == 7

    (root / "c.pdf").write_bytes(small.pdf("one page", "changed page"))
    assert changed(root, table)[0] == {"c.pdf#page=2"}
    assert rows_of(table)["c.pdf#page=2"].text == "changed page"

    (root / "c.pdf").write_bytes(small.pdf("one page"))
    (root / "a.jpg").unlink()
    (root / "e.png").write_bytes(small.image(9))
    seen, counts = changed(root, table)
    assert seen == {"e.png", "a.txt#chunk=1"}
    assert (counts.files, counts.rejected, counts.forgotten) == (6, 0, 1)
    assert {"c.pdf#page=2", "a.jpg"}.isdisjoint(rows_of(table))

    fresh = LanceTable.create(tmp_path / "fresh", SeeingEncoder.dimension)
    changed(root, fresh)
    assert [row.digest for row in rows_of(table).values()] == [row.digest for row in rows_of(fresh).values()]
    assert files_of(table) == files_of(fresh)


def test_captions_that_come_change_and_go_are_noticed(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", small.image(1, "JPEG"))
    table = MemoryTable()
    changed(tmp_path, table)
    for caption in ("a red boat", "a RED boat", None):
        if caption is None:
            (tmp_path / "a.txt").unlink()
        else:
            write(tmp_path, "a.txt", caption)
        changed(tmp_path, table)
        row = rows_of(table)["a.jpg"]
        assert (row.text, row.modality) == ((caption, "image,text") if caption else ("", "image"))


def test_settings_and_versions_of_readers_read_again_and_embed_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_folder(tmp_path)
    table = MemoryTable()
    changed(tmp_path, table)
    monkeypatch.setattr(units, "READER_VERSION", units.READER_VERSION + 1)
    seen, counts = changed(tmp_path, table)
    assert (seen, counts.unchanged) == (set(), 0)
    assert changed(tmp_path, table, reading=Reading(captions=False))[0] == {"a.jpg", "a.txt#chunk=1"}
    write(tmp_path, ".h.txt", "hidden words")
    assert changed(tmp_path, table, reading=Reading(captions=False))[0] == set()
    assert changed(tmp_path, table, reading=Reading(captions=False), hidden=True)[0] == {".h.txt#chunk=1"}


def test_an_empty_folder_does_not_empty_the_collection(tmp_path: Path) -> None:
    root = small_folder(tmp_path / "files")
    table = MemoryTable()
    changed(root, table)
    (tmp_path / "mount").mkdir()
    with pytest.raises(DataError, match="is a disk not mounted"):
        changed(tmp_path / "mount", table)
    assert len(files_of(table)) == 6


def test_files_of_a_folder_that_cannot_be_listed_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small_folder(tmp_path)
    table = MemoryTable()
    changed(root, table)
    listed = os.scandir

    def scandir(path: bytes) -> Any:
        if path.endswith(b"/notes"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("umr.search.walk.os.scandir", scandir)
    assert changed(root, table)[1].forgotten == 0
    assert "notes/b.md" in files_of(table)


def test_a_manifest_is_indexed_and_brought_up_to_date(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", small.image(1, "JPEG"))
    lines = ['{"id": "a", "image": "1.jpg", "year": 1999}', '{"id": "b", "text": "words"}', "rubbish"]
    path = write(tmp_path, "items.jsonl", "\n".join(lines))
    table = LanceTable.create(tmp_path / "collection", SeeingEncoder.dimension)
    counts = index_units(manifest_units(path), table, SeeingEncoder(), str(path))
    assert (counts.files, counts.indexed, counts.rejected) == (3, 2, 1)
    assert rows_of(table)["a"].metadata == {"year": 1999}
    path.write_text('{"id": "b", "text": "words"}\n{"id": "c", "text": "more"}')
    encoder = SeeingEncoder()
    counts = index_units(manifest_units(path), table, encoder, str(path))
    assert (encoder.seen, counts.unchanged, counts.forgotten) == (["c"], 1, 2)
    assert list(rows_of(table)) == ["b", "c"]


# --- order, memory, interruption


def test_any_number_of_threads_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = write_mixed(tmp_path, 50)
    monkeypatch.setattr(ingest, "BLOCK_FILES", 8)
    tables = []
    for workers in (1, 5):
        table = MemoryTable()
        index_folder(mixed.root, table, SeeingEncoder(), workers=workers)
        tables.append(table)
    same_rows(*tables)


def units_of(pieces: list[int], produced: list[str]) -> list[Unit]:
    """Units that note down the pieces that they have made; a thousand pixels each, so they claim."""

    def read(name: str, count: int) -> Iterator[Event]:
        for number in range(count):
            produced.append(f"{name}{number}")
            item = item_of(text="x")
            yield Piece(f"{name}{number}", name, item, item.digest, pixels=1_000_000)
        yield Done(name, "x")

    names = [chr(97 + place) for place in range(len(pieces))]
    return [Unit((Found(name, 1, 1),), "tag", partial(read, name, count)) for name, count in zip(names, pieces, strict=True)]


def test_reading_ahead_is_bounded_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "WAITING_PIXELS", 5_000_000)
    produced: list[str] = []
    taken = []
    with reading_ahead(units_of([1, 20, 0, 3, 9], produced), workers=3) as streams:
        for stream in streams:
            for event in stream:
                taken.append(event.id if isinstance(event, Piece) else event.source)
                time.sleep(0.002)
                assert len(produced) - sum(name[1:] != "" for name in taken) <= 5 + 3  # each thread holds one in its hand
    expected = [["a0"], [f"b{n}" for n in range(20)], [], [f"d{n}" for n in range(3)], [f"e{n}" for n in range(9)]]
    assert taken == [id for place, ids in enumerate(expected) for id in [*ids, chr(97 + place)]]


def test_leaving_early_ends_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "WAITING_PIXELS", 2_000_000)
    produced: list[str] = []
    with pytest.raises(KeyboardInterrupt), reading_ahead(units_of([50] * 20, produced), workers=4) as streams:
        next(next(streams))
        raise KeyboardInterrupt
    assert len(produced) < 20


def test_interrupted_at_every_block_it_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = write_mixed(tmp_path, 40)
    monkeypatch.setattr(ingest, "BLOCK_FILES", 8)
    straight, broken = MemoryTable(), MemoryTable()
    index_folder(mixed.root, straight, SeeingEncoder())

    class Tired(SeeingEncoder):
        def encode(self, *arguments: Any) -> Any:
            if self.calls:
                raise KeyboardInterrupt
            return super().encode(*arguments)

    rounds = 0
    while True:
        rounds += 1
        try:
            index_folder(mixed.root, broken, Tired())
            break
        except KeyboardInterrupt:
            assert rounds < 20
    assert rounds > 3
    same_rows(straight, broken)


def index_process(root: Path, collection: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    command = [sys.executable, str(Path(__file__).with_name("index_in_pieces.py")), str(root), str(collection)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": paths})


FULL_SIZE = pytest.mark.skipif("UMR_FULL_SIZE" not in os.environ, reason="takes many minutes; UMR_FULL_SIZE=1 runs it")


@pytest.mark.parametrize(("count", "kills"), [(60, 3), pytest.param(2000, 10, marks=FULL_SIZE)])
def test_killed_at_random_it_ends_as_a_straight_run(tmp_path: Path, count: int, kills: int) -> None:
    mixed = write_mixed(tmp_path / "files", count)
    told = index_process(mixed.root, tmp_path / "straight").communicate()[0]
    assert told.strip(".") == str(count)
    calls, draw, killed = told.count("."), random.Random(0), 0
    for _ in range(kills):
        with index_process(mixed.root, tmp_path / "killed") as process:
            assert process.stdout is not None
            dots = process.stdout.read(draw.randint(2, max(2, 2 * calls // (kills + 1))))
            time.sleep(draw.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        killed += set(dots) == {"."} and process.returncode == -signal.SIGKILL
    assert killed >= kills - 1
    assert index_process(mixed.root, tmp_path / "killed").communicate()[0].strip(".") == str(count)
    same_rows(table_of(tmp_path / "straight"), table_of(tmp_path / "killed"))
    found = {os.fsencode(real(file.path)): file.status == "indexed" for file in table_of(tmp_path / "killed").files()}
    assert found == mixed.expected


def test_a_real_model_gives_the_vectors_of_its_items(tmp_path: Path) -> None:
    model = embedder("qwen3-vl")
    root = small_folder(tmp_path / "files")
    table = LanceTable.create(tmp_path / "collection", model.dimension)
    counts = index_folder(root, table, model)
    rows = rows_of(table)
    assert (counts.indexed, counts.rejected, counts.rows) == (5, 1, len(rows))
    assert {row.modality for row in rows.values()} == {"image,text", "text", "video"}
    items = [reopen(row, root / row.media if row.media else None) for row in rows.values()]
    assert [item.digest for item in items] == [row.digest for row in rows.values()]
    stored = np.stack([row.vector_D for row in rows.values()])  # type: ignore[misc]
    assert np.abs(stored.astype(np.float32) - model.encode(items)).max() < 1e-3  # float16
