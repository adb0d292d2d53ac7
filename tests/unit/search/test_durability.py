"""Power cuts and killed writers: what is flushed, what is healed, and that no acknowledged row is lost."""

import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from umr.errors import StoreError
from umr.search import manifests, upkeep
from umr.search.lance import LanceTable
from umr.search.rows import Row, SourceFile

D = 8
VECTOR_D = (np.ones(D) / np.sqrt(D)).astype(np.float16)


def row(id: str, source: str, text: str = "") -> Row:
    return Row(id, source, "text", "", VECTOR_D, text=text)


def put(table: LanceTable, source: str, count: int) -> None:
    rows = [row(f"{source}#{number}", source, f"words of {source}") for number in range(count)]
    table.put(rows, [SourceFile(source, "", 1, 1, "indexed", count)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collection of two files, each put by a commit of its own."""
    table = LanceTable.create(tmp_path / "c", D)
    put(table, "a", 3)
    put(table, "b", 2)
    return tmp_path / "c"


def state(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    table = LanceTable.open(folder)
    ids = sorted(id for batch in table.scan(["id"]) for id in batch["id"].to_pylist())
    return ids, [(file.path, file.rows) for file in table.files()]


A = ["a#0", "a#1", "a#2"]
B = ["b#0", "b#1"]


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def test_everything_a_commit_writes_is_flushed_before_it_is_acknowledged(folder: Path, monkeypatch: pytest.MonkeyPatch):
    flushed: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    table = LanceTable.open(folder)
    put(table, "c", 1)
    before = {str(path) for path in folder.rglob("*")}
    monkeypatch.setattr(os, "fsync", fsync)
    table.delete(["a#1"])
    put(table, "b", 1)
    new = {str(path) for path in folder.rglob("*")} - before
    assert {Path(path).parent.name for path in new} >= {"data", "_versions", "_deletions"}
    assert new <= set(flushed)
    assert {str(Path(path).parent) for path in new} <= set(flushed)
    versions = [path for path in flushed if path.endswith(".manifest")]
    assert ["rows.lance" in path for path in versions] == sorted(("rows.lance" in path for path in versions), reverse=True)
    flushed.clear()
    table.add([row("x", "x")])
    assert 0 < len(flushed) < 12  # only what is new


def test_what_a_killed_writer_left_unflushed_is_flushed_by_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch):
    flushed: set[str] = set()
    left = {str(path) for path in folder.rglob("*.lance") if path.is_file()} | {str(path) for path in folder.rglob("*.manifest")}
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.add(str(Path(f"/proc/self/fd/{handle}").readlink())))
    LanceTable.open(folder).add([row("x", "x")])
    assert len(left) >= 6 and left <= flushed


def test_joined_files_are_flushed_before_those_they_were_joined_from_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "SMALL_FILES", 20)
    monkeypatch.setattr(upkeep, "KEPT", timedelta(milliseconds=1))
    old = set(folder.glob("rows.lance/data/*"))
    left: dict[str, bool] = {}

    def fsync(handle: int) -> None:
        left[str(Path(f"/proc/self/fd/{handle}").readlink())] = all(path.exists() for path in old)

    monkeypatch.setattr(os, "fsync", fsync)
    table = LanceTable.open(folder)
    table.tidy()
    (joined,) = set(folder.glob("rows.lance/data/*"))
    assert joined not in old and left[str(joined)]
    assert state(folder) == ([*A, *B], [("a", 3), ("b", 2)])


@pytest.mark.parametrize("damage", [emptied, halved, zeroed])
@pytest.mark.parametrize("name", ["rows", "files"])
def test_a_torn_manifest_is_stepped_over(folder: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture):
    version = int(LanceTable.open(folder).version())
    torn = newest(folder, f"{name}.lance/_versions/*.manifest")
    damage(torn)
    with caplog.at_level(logging.WARNING, "umr.search"):
        assert state(folder) == ([*A, *B] if name == "files" else A, [("a", 3)])
    (said,) = [record.message for record in caplog.records]
    assert f"{name}.lance: version" in said and "index again to add what is missing" in said
    assert torn.with_name(torn.name + ".damaged").exists()
    caplog.clear()
    table = LanceTable.open(folder)
    put(table, "b", 2)
    assert state(folder) == ([*A, *B], [("a", 3), ("b", 2)])
    assert int(table.version()) > version and not caplog.records


def test_lance_itself_does_not_open_such_a_table(folder: Path):
    """Otherwise the tests above would show nothing."""
    import lancedb

    emptied(newest(folder, "rows.lance/_versions/*.manifest"))
    with pytest.raises(RuntimeError):
        lancedb.connect(folder).open_table("rows")


@pytest.mark.parametrize("damage", [emptied, halved, Path.unlink])
def test_rows_that_are_not_there_are_stepped_over(folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture):
    damage(newest(folder, "rows.lance/data/*.lance"))
    assert state(folder) == (A, [("a", 3)])
    assert len(caplog.records) == 1
    assert state(folder) == (A, [("a", 3)]) and len(caplog.records) == 1


def test_deletions_that_are_not_there_are_stepped_over(folder: Path, caplog: pytest.LogCaptureFixture):
    LanceTable.open(folder).delete(["a#1"])
    emptied(newest(folder, "rows.lance/_deletions/*"))
    assert state(folder) == ([*A, *B], [("a", 3), ("b", 2)])
    assert len(caplog.records) == 1


def test_a_damaged_index_is_made_again(folder: Path, caplog: pytest.LogCaptureFixture):
    for path in folder.glob("rows.lance/_indices/*/*"):
        emptied(path)
    table = LanceTable.open(folder)
    assert [near.id for near in table.words("b", 5)] == B
    assert ["the index of 'text' is damaged" in record.message for record in caplog.records] == [True]
    assert len(LanceTable.open(folder).words("a", 5)) == 3 and len(caplog.records) == 1


def test_what_is_derived_from_a_version_that_is_gone_is_not_used(folder: Path):
    query_1D = VECTOR_D[None].astype(np.float32)
    assert len(LanceTable.open(folder).nearest(query_1D, 9)[0]) == 5
    emptied(newest(folder, "rows.lance/_versions/*.manifest"))
    table = LanceTable.open(folder)
    assert sorted(near.id for near in table.nearest(query_1D, 9)[0]) == A
    put(table, "c", 1)
    assert sorted(near.id for near in table.nearest(query_1D, 9)[0]) == [*A, "c#0"]


def test_a_table_that_is_damaged_throughout_says_so(folder: Path):
    for manifest in folder.glob("rows.lance/_versions/*.manifest"):
        emptied(manifest)
    with pytest.raises(StoreError, match=r"rows.lance: damaged, and no older version is whole; restore it from a copy"):
        LanceTable.open(folder)


def test_a_manifest_names_what_lance_wrote_and_no_part_of_it_passes_for_whole(folder: Path, tmp_path: Path):
    table = folder / "rows.lance"
    LanceTable.open(folder).delete(["a#0"])
    (number, path), *_ = manifests.versions(table)
    contents = manifests.read(table, path)
    assert contents is not None and contents.readable and not contents.lost_indexes
    assert str(number) == LanceTable.open(folder).version()
    named = {file.path for file in contents.rows} | {file.path for files in contents.indexes.values() for file in files}
    assert named >= set(table.glob("data/*")) | set(table.glob("_deletions/*"))
    assert {path.parent.parent.name for path in named} >= {"_indices"}
    data = path.read_bytes()
    for length in {*range(0, len(data), 11), *range(len(data) - 24, len(data))}:
        (tmp_path / "torn").write_bytes(data[:length])
        assert manifests.read(table, tmp_path / "torn") is None


WRITER = """
import sys
from pathlib import Path
from unit.search.test_durability import put
from umr.search import upkeep
from umr.search.lance import LanceTable
upkeep.SMALL_FILES = 8
table = LanceTable.open(Path(sys.argv[1]))
for number in range(6 if sys.argv[2] == "0" else 10_000):
    put(table, f"{sys.argv[2]}/{number}", 20)
    put(table, f"{sys.argv[2]}/{number}", 15)
    print(f"{sys.argv[2]}/{number}", flush=True)
"""


def test_of_four_writers_three_are_killed_and_no_acknowledged_row_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    chance = random.Random(0)
    LanceTable.create(tmp_path / "c", D)
    paths = ":".join([*sys.path, str(Path(__file__).parents[2])])
    commands = [[sys.executable, "-c", WRITER, str(tmp_path / "c"), str(own)] for own in range(4)]
    writers = [subprocess.Popen(command, env={"PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True) for command in commands]
    said = [writer.stdout for writer in writers if writer.stdout is not None]
    try:
        acknowledged = {said[own].readline().strip() for own in (3, 2, 1)}
        for own in (2, 3, 1):
            time.sleep(chance.random() * 0.4)
            writers[own].kill()
            LanceTable.open(tmp_path / "c")
        acknowledged.update(line.strip() for lines in said for line in lines)
        assert [writer.wait() for writer in writers] == [0, -9, -9, -9]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            said[writers.index(writer)].close()
    table = LanceTable.open(tmp_path / "c")
    counts = Counter(source for batch in table.scan(["source"]) for source in batch["source"].to_pylist())
    assert {source for source in acknowledged if counts[source] != 15} == set()
    assert {f"0/{number}" for number in range(6)} <= acknowledged and "" not in acknowledged
    assert set(counts.values()) <= {15, 20} and len(counts) <= len(acknowledged) + 3
    assert acknowledged <= {file.path for file in table.files()} <= set(counts)
    assert len(table.words("words", 10_000)) == sum(counts.values())
    assert not caplog.records  # nothing was taken for damaged meanwhile
