"""What every `Table` must do, whatever engine keeps the rows: run for each of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from umr.errors import DataError
from umr.search.filters import Filter, fields_of
from umr.search.rows import Row, SourceFile
from umr.search.table import Table

D = 16
MODALITIES = ("image", "text", "image,text", "video")


@pytest.fixture(params=["lance"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Table]:
    """Makes an empty table; each call opens it anew, as another reader would."""
    from umr.search.lance import LanceTable

    LanceTable.create(tmp_path / "collection", D)
    return lambda: LanceTable.open(tmp_path / "collection")


@pytest.fixture
def table(reopen: Callable[[], Table]) -> Table:
    return reopen()


def unit(seed: int) -> np.ndarray:
    vector_D = np.random.default_rng(seed).standard_normal(D)
    return (vector_D / np.linalg.norm(vector_D)).astype(np.float16)


def row(number: int, source: str = "a.txt", **fields: Any) -> Row:
    return replace(Row(f"r{number}", source, MODALITIES[number % 4], f"digest {number}", unit(number)), **fields)


def record(path: str, rows: int, reason: str = "") -> SourceFile:
    return SourceFile(path, f"hash of {path}", 10, 20, "rejected" if reason else "indexed", rows, reason)


def ids(table: Table) -> list[str]:
    return sorted(id for batch in table.scan(["id"]) for id in batch["id"].to_pylist())


def same(one: Row, other: Row) -> bool:
    equal = (one.vector_D is None) == (other.vector_D is None) and (one.vector_D is None or (one.vector_D == other.vector_D).all())
    return bool(equal) and replace(one, vector_D=None) == replace(other, vector_D=None)


def test_an_empty_table_answers_everything_with_nothing(table: Table):
    assert (table.count(), list(table.files()), list(table.scan(["id"])), table.rows(["a"])) == (0, [], [], [])
    assert table.nearest(np.eye(2, D, dtype=np.float32), 5) == [[], []]
    assert table.words("anything", 5) == []
    assert (table.delete(["a"]), table.forget(["a"]), table.count(Filter.parse("year=3"))) == (0, 0, 0)


def test_a_row_comes_back_as_it_went(table: Table):
    odd = row(
        1,
        "döner/it's \\x41 'a'.pdf",
        id="it's; \\' \"x\" 100% \n𝔸 --",
        text="naïve\n'text'",
        media="a/b.pdf",
        page=3,
        start=0.25,
        end=2**31 + 0.5,
        thumbnail=b"\x00\xff",
        metadata={"n": 2**60 + 1, "f": 0.1, "whole": 3.0, "t": "ü", "b": True, "l": ["x", ""]},
    )
    table.put([odd, row(2, odd.source)], [record(odd.source, 2)])
    (back,) = table.rows([odd.id], vectors=True)
    assert same(back, odd)
    assert [type(back.metadata[name]) for name in ("n", "f", "whole", "b")] == [int, float, float, bool]
    (bare,) = table.rows([odd.id])
    assert same(bare, replace(odd, vector_D=None))
    assert list(table.files()) == [record(odd.source, 2)]
    assert table.forget([odd.source]) == 2 and table.count() == 0


def test_rows_come_in_the_order_asked(table: Table):
    table.add([row(number) for number in range(20)])
    assert [found.id for found in table.rows(["r7", "nothing", "r3", "r19", "r3"])] == ["r7", "r3", "r19", "r3"]


def test_putting_a_file_again_replaces_its_rows_and_no_others(table: Table):
    table.put([row(1), row(2), row(3, "b.txt")], [record("a.txt", 2), record("b.txt", 1), record("c.txt", 0, "is empty")])
    table.put([row(2, text="new"), row(4)], [record("a.txt", 2)])
    assert ids(table) == ["r2", "r3", "r4"]
    assert table.rows(["r2"])[0].text == "new"
    table.put([], [record("a.txt", 0, "cannot be read")])
    assert ids(table) == ["r3"]
    assert [(file.path, file.status, file.reason) for file in table.files()] == [
        ("a.txt", "rejected", "cannot be read"),
        ("b.txt", "indexed", ""),
        ("c.txt", "rejected", "is empty"),
    ]
    assert table.forget(["b.txt", "c.txt", "never there"]) == 1
    assert ([file.path for file in table.files()], table.count()) == (["a.txt"], 0)


def test_adding_replaces_equal_ids_and_deleting_counts(table: Table):
    table.add([row(1), row(2)])
    table.add([row(2, text="new"), row(3)])
    assert (ids(table), table.rows(["r2"])[0].text) == (["r1", "r2", "r3"], "new")
    assert (table.delete(["r1", "r9", "r3"]), ids(table)) == (2, ["r2"])
    table.add([])
    table.put([], [])
    assert ids(table) == ["r2"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([row(1), row(1)], "'r1' of a.txt: its id is there twice"),
        ([row(1, id="")], "an id must not be empty"),
        ([row(1, vector_D=None)], "'r1' has no vector"),
        ([row(1, vector_D=np.ones(3, np.float16))], r"shape \(3,\)"),
        ([row(1, vector_D=np.full(D, np.nan, np.float16))], "'r1': its vector has length nan"),
        ([row(1, vector_D=np.zeros(D, np.float16))], "'r1': its vector has length 0"),
        ([row(1, text="\ud800")], "'r1': its text is not valid Unicode"),
        ([row(1, metadata={"x": {"y": 1}})], "row r1: metadata field 'x'"),
    ],
)
def test_a_row_that_cannot_be_kept_is_refused_and_nothing_changes(table: Table, bad: list[Row], message: str):
    before = table.version()
    for change in (lambda: table.add([row(7), *bad]), lambda: table.put([row(7), *bad], [record("a.txt", 2)])):
        with pytest.raises(DataError, match=message):
            change()
    assert (table.version(), table.count(), list(table.files())) == (before, 0, [])


def test_scanning_gives_every_row_once_with_its_vector(table: Table):
    rows = [row(number, metadata={"n": number}) for number in range(30)]
    table.add(rows[:20])
    table.add(rows[20:])
    found = pa.Table.from_batches(table.scan(["vector", "id", "metadata"]))
    assert found.column_names == ["vector", "id", "metadata"]
    by_id = {one["id"]: one for one in found.to_pylist()}
    assert sorted(by_id) == sorted(one.id for one in rows) and len(found) == 30
    np.testing.assert_array_equal([by_id[one.id]["vector"] for one in rows], [one.vector_D for one in rows])


FILTERS = ["modality=image", "n<12", 'source=["b.txt"]', ["n>=5", "modality!=text"], "tags~x", "n=null", "page>2", 'id=["r3","r4"]', "no~t"]


@pytest.fixture
def thirty(table: Table) -> list[Row]:
    rows = [
        row(
            number,
            "a.txt" if number % 3 else "b.txt",
            text=f"{'circle ' * (number % 4)}{'red' if number % 2 else 'blue'} thing {number}",
            page=number % 5 or None,
            metadata={"n": number, "tags": ["x", "y"][: number % 3]} if number != 7 else {},
        )
        for number in range(30)
    ]
    table.add(rows)
    return rows


@pytest.mark.parametrize("asked", FILTERS, ids=str)
def test_filters_hold_everywhere(table: Table, thirty: list[Row], asked: Any):
    where = Filter.parse(asked)
    passing = [one for one in thirty if where.matches(fields_of(one))]
    assert table.count(where) == len(passing)
    (near,) = table.nearest(unit(99)[None].astype(np.float32), 50, where)
    assert sorted(one.id for one in near) == sorted(one.id for one in passing)
    assert sorted(one.id for one in table.words("thing", 50, where)) == sorted(one.id for one in passing)
    assert len(table.words("thing", 2, where)) == min(2, len(passing))


def brute(rows: list[Row], query_D: np.ndarray, k: int) -> list[tuple[str, float]]:
    scored = [(one.id, float(one.vector_D.astype(np.float64) @ query_D)) for one in rows if one.vector_D is not None]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k]


def test_nearest_is_what_brute_force_finds_and_follows_changes(table: Table, reopen: Callable[[], Table], thirty: list[Row]):
    queries_QD = np.stack([unit(seed) for seed in (100, 101)]).astype(np.float32)
    queries_QD /= np.linalg.norm(queries_QD, axis=1, keepdims=True)
    other = reopen()

    def check(rows: list[Row], k: int = 7, modalities: list[str] | None = None) -> None:
        some = [one for one in rows if modalities is None or one.modality in modalities]
        for reader in (table, other):
            for query_D, found in zip(queries_QD, reader.nearest(queries_QD, k, None, modalities), strict=True):
                expected = brute(some, query_D, k)
                assert [near.id for near in found] == [id for id, _ in expected]
                np.testing.assert_allclose([near.score for near in found], [score for _, score in expected], atol=2e-3)

    check(thirty)
    check(thirty, 50)
    check(thirty, 5, ["text", "video"])
    check(thirty, 5, [])
    table.delete(["r4"])
    replaced = row(5, vector_D=unit(100))
    table.add([replaced, row(40, vector_D=unit(101), modality="audio")])
    rows = [one for one in thirty if one.id not in ("r4", "r5")] + [replaced, row(40, vector_D=unit(101), modality="audio")]
    check(rows)
    check(rows, 3, ["audio", "text"])


def test_equal_scores_come_in_order_of_id(table: Table):
    table.add([row(number, vector_D=unit(1), modality=MODALITIES[number % 4]) for number in (3, 1, 2, 0)])
    (found,) = table.nearest(unit(1)[None].astype(np.float32), 3)
    assert [near.id for near in found] == ["r0", "r1", "r2"]


def test_words_are_taken_literally_and_the_best_come_first(table: Table):
    texts = ["a red circle", "blue squares AND a Café", "red red red circle OR nothing", "the the the", "红色的圆", ""]
    table.add([row(number, text=text) for number, text in enumerate(texts)])

    def found(words: str, k: int = 5, **how: Any) -> list[str]:
        return [near.id for near in table.words(words, k, **how)]

    assert found("red circle") == ["r2", "r0"] or found("red circle") == ["r0", "r2"]
    assert found("red", 1) == ["r2"]
    assert found("circles") == found("CIRCLE") and set(found("circle")) == {"r0", "r2"}
    assert found("cafe") == ["r1"]
    assert found("the") == ["r3"]
    assert found("红色") == ["r4"]
    assert set(found('"red (circle" AND -blue text:square* ^2 ~')) == {"r0", "r1", "r2"}
    assert [found(nothing) for nothing in ("", "  ", "zebra", "?!")] == [[], [], [], []]
    assert set(found("red", modalities=["image"])) == {"r0"} and found("red", modalities=[]) == []
    scores = [near.score for near in table.words("red circle", 5)]
    assert scores == sorted(scores, reverse=True) and min(scores) > 0
    table.add([row(0, text="green")])
    assert set(found("circle")) == {"r2"} and found("green") == ["r0"]


def test_the_version_changes_with_every_change(table: Table, reopen: Callable[[], Table]):
    other = reopen()
    seen = [table.version()]
    for change in (
        lambda: table.add([row(1), row(2)]),
        lambda: table.put([row(3, "b.txt")], [record("b.txt", 1)]),
        lambda: table.delete(["r1"]),
        lambda: table.forget(["b.txt"]),
        lambda: table.add([row(2, text="new")]),
    ):
        change()
        assert other.version() == table.version() not in seen
        seen.append(table.version())
    assert (ids(other), other.rows(["r2"])[0].text) == (["r2"], "new")
    assert table.delete(["nothing"]) == 0 and table.version() == seen[-1]


def test_several_write_at_once_and_every_row_is_kept(reopen: Callable[[], Table]):
    def write(own: int) -> None:
        table = reopen()
        for turn in range(2):
            source = f"{own}/{turn}"
            rows = [row(1000 * own + 10 * turn + number, source) for number in range(5)]
            table.put([*rows, row(9000 + own, "old")], [record(source, 5)])
            table.put(rows[:3], [record(source, 3)])
            table.add([row(7, text=f"shared {own} {turn}")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    table = reopen()
    expected = [f"r{1000 * own + 10 * turn + number}" for own in range(4) for turn in range(2) for number in range(3)]
    assert ids(table) == sorted([*expected, *(f"r{9000 + own}" for own in range(4)), "r7"])
    assert {file.path: file.rows for file in table.files()} == {f"{own}/{turn}": 3 for own in range(4) for turn in range(2)}
