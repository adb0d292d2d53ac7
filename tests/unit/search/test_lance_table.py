"""What is particular to LanceDB: making and opening, upkeep by counts, and fast search that follows the table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umr.errors import StoreError
from umr.search import lance, upkeep
from umr.search.filters import Filter
from umr.search.following import Snapshot
from umr.search.lance import LanceTable
from umr.search.rows import Row, SourceFile
from umr.search.tier import Tier

D = 8


def row(number: int, text: str = "", **fields: Any) -> Row:
    vector_D = np.random.default_rng(number).standard_normal(D)
    return Row(f"r{number}", "a", "text", "", (vector_D / np.linalg.norm(vector_D)).astype(np.float16), text=text, **fields)


@pytest.fixture
def table(tmp_path: Path) -> LanceTable:
    return LanceTable.create(tmp_path / "c", D)


def test_rows_are_never_overwritten_by_making_a_collection(table: LanceTable):
    LanceTable.create(table.folder, D + 1)  # as after an interruption: nothing was in it yet
    table = LanceTable.open(table.folder)
    assert table.dimension == D + 1
    table = LanceTable.create(table.folder, D)
    table.add([row(1)])
    with pytest.raises(StoreError, match="holds rows of a collection already"):
        LanceTable.create(table.folder, D)
    assert LanceTable.open(table.folder).count() == 1


def test_a_folder_without_tables_says_so(tmp_path: Path):
    with pytest.raises(StoreError, match=r"no rows of a collection here \(rows.lance is missing\)"):
        LanceTable.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_lance_reports_becomes_one_line_of_ours(table: LanceTable):
    with pytest.raises(StoreError, match=f"^{table.folder}: the store failed \\(.*nonsense.*\\); what was") as caught:
        list(table.scan(["nonsense"]))
    assert "\n" not in str(caught.value) and ".rs:" not in str(caught.value)


def test_a_reader_that_is_not_fresh_keeps_its_version(table: LanceTable):
    table.add([row(1)])
    still, fresh = LanceTable.open(table.folder, fresh=False), LanceTable.open(table.folder)
    table.add([row(2)])
    assert (still.count(), fresh.count()) == (1, 2)
    assert (len(still.rows(["r1", "r2"])), len(fresh.rows(["r1", "r2"]))) == (1, 2)


def test_upkeep_goes_by_counts_and_changes_no_answer(table: LanceTable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "SMALL_FILES", 5)
    monkeypatch.setattr(upkeep, "INDEX_ROWS", 1000)
    optimised: list[bool] = []
    tidy = upkeep.tidy

    def counted(table: Any, *args: Any, **how: Any) -> bool:
        done = tidy(table, *args, **how)
        optimised.append(done and table.name == "rows")
        return done

    monkeypatch.setattr(upkeep, "tidy", counted)
    for number in range(4):
        table.put([row(number, f"word{number} same")], [SourceFile(str(number), "", 1, 1, "indexed", 1)])
    assert not any(optimised)
    answers = (table.words("word2 same", 9), table.nearest(row(3).vector_D[None].astype(np.float32), 9), table.rows(["r0", "r3"]))
    table.add([row(4, "other")])
    assert optimised.count(True) == 1
    monkeypatch.setattr(upkeep, "INDEX_ROWS", 3)
    table.add([row(number, "more") for number in range(5, 9)])
    assert optimised.count(True) == 2
    table.delete(["r4", *(f"r{number}" for number in range(5, 9))])
    table.tidy()
    again = (table.words("word2 same", 9), table.nearest(row(3).vector_D[None].astype(np.float32), 9), table.rows(["r0", "r3"]))
    assert [near.id for near in again[0]] == [near.id for near in answers[0]]
    assert again[1] == answers[1]
    assert [one.id for one in again[2]] == ["r0", "r3"]
    indexes = {index.columns[0]: index for index in table._rows.list_indices()}
    assert set(indexes) == {"text", "id", "source"}
    table.add([row(2, "new")])  # by the index of ids
    assert [near.id for near in table.words("new", 5)] == ["r2"] and table.count() == 4


def test_words_that_pass_a_rare_filter_are_found_among_many(table: LanceTable):
    table.add([row(number, f"{'common ' * (number % 5 + 1)}word", metadata={"n": number}) for number in range(900)])
    assert [near.id for near in table.words("common", 3, Filter.parse("n=895"))] == ["r895"]
    assert len(table.words("common", 700, Filter.parse("n<800"))) == 700


def test_fast_search_follows_small_changes_and_is_opened_anew_after_large_ones(table: LanceTable, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    refreshed: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(lance, "_FOLLOWED", 5)

    class Watched(Tier):
        @classmethod
        def open(cls, scan: Any, folder: Path, version: str, *args: Any) -> Tier:
            opened.append(version)
            return super().open(scan, folder, version, *args)

        def refresh(self, version: str, rows: Any = (), gone: Any = ()) -> None:
            rows = list(rows)
            refreshed.append((sum(batch.num_rows for batch in rows), list(gone)))
            super().refresh(version, rows, gone)

    monkeypatch.setattr("umr.search.tier.Tier", Watched)

    def found(count: int) -> list[str]:
        (near,) = table.nearest(row(0).vector_D[None].astype(np.float32), count)
        return sorted(one.id for one in near)

    table.add([row(number) for number in range(10)])
    assert len(found(20)) == 10 and len(found(20)) == 10
    assert (len(opened), refreshed) == (1, [])
    LanceTable.open(table.folder).delete(["r3"])
    table.add([row(4, "changed"), row(11)])
    assert found(20) == sorted(f"r{number}" for number in (0, 1, 2, 4, 5, 6, 7, 8, 9, 11))
    assert (len(opened), refreshed) == (1, [(2, ["r3"])])
    table.tidy()
    table._rows.optimize()
    assert len(found(20)) == 10 and refreshed[1:] in ([], [(0, [])]) and len(opened) == 1
    table.add([row(number) for number in range(20, 30)])
    assert len(found(50)) == 20 and len(opened) == 2
    table.close()
    assert len(found(50)) == 20 and len(opened) == 3


def test_rows_that_were_found_are_read_without_lance(table: LanceTable, monkeypatch: pytest.MonkeyPatch):
    """And are the same. Rows written after the index are read from Lance, and all rows after a change that no search has seen."""
    written = [row(number, f"text {number}", thumbnail=b"p", page=2, start=0.5, metadata={"n": [str(number)]}) for number in range(12)]
    table.add(written)
    names = [one.id for one in written]
    plain = table.rows(names, vectors=True)
    assert len(table.nearest(written[0].vector_D[None].astype(np.float32), 12)[0]) == 12
    read: list[str | None] = []
    inside = LanceTable._read

    def watched(self: LanceTable, columns: Any, where: str | None = None, table: Any = None) -> Any:
        read.append(where)
        return inside(self, columns, where, table)

    monkeypatch.setattr(LanceTable, "_read", watched)
    for with_vectors in (True, False):
        for one, other in zip(table.rows(names, with_vectors), plain, strict=True):
            assert replace(one, vector_D=None) == replace(other, vector_D=None)
            assert (one.vector_D is not None) == with_vectors and (not with_vectors or (one.vector_D == other.vector_D).all())
    assert [one.id for one in table.rows(["r3", "r3", "nothing"])] == ["r3", "r3"]
    assert read == ["id IN ('nothing')"]
    LanceTable.open(table.folder).add([row(3, "another text")])
    table.delete(["r4"])
    assert [one.text for one in table.rows(["r3", "r4", "r5"])] == ["another text", "text 5"]
    table.nearest(written[0].vector_D[None].astype(np.float32), 12)
    read.clear()
    assert [one.text for one in table.rows(["r3", "r4", "r5"])] == ["another text", "text 5"]
    assert read == ["id IN ('r3', 'r4')"]


def test_snapshots_tell_what_was_added_replaced_and_removed(table: LanceTable):
    def snapshot() -> Snapshot:
        return Snapshot.of(table.version(), table.scan)

    empty = snapshot()
    table.add([row(1), row(2), row(3)])
    first = snapshot()
    table.delete(["r1"])
    table.add([row(2), row(4)])
    second = snapshot()
    changed, gone = second.changed_since(first)
    assert (sorted(changed), gone) == (["r2", "r4"], ["r1"])
    assert [sorted(ids) for ids in first.changed_since(empty)] == [["r1", "r2", "r3"], []]
    assert [sorted(ids) for ids in empty.changed_since(first)] == [[], ["r1", "r2", "r3"]]
    assert second.changed_since(second) == ([], [])
