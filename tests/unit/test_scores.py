"""The score table: what goes in comes out, nothing is lost or doubled, and damage and mix-ups are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.errors import StoreError
from umr.mining import scores_files
from umr.mining.scores import ScoredList, ScoreTable
from umr.mining.scores_writer import Origin, ScoreWriter

ORIGIN = Origin("retriever-a", "teacher-a", "runs/teacher/model")
KEYS = {"data": "some data", "split": "train", "instruction": "first", "depth": 50}


def scored(number: int, setting: str = "mscoco_task0", pool: str = "local", length: int = 4) -> ScoredList:
    rng = np.random.default_rng([number, length])
    dids = tuple(f"9:{number * 100 + place}" for place in range(length))
    cosine_K = np.sort(rng.random(length).astype(np.float32))[::-1].copy()
    return ScoredList(f"9:{number}", setting, pool, dids, cosine_K, rng.random(length).astype(np.float32))


def same(one: ScoredList, other: ScoredList) -> bool:
    names = ("qid", "setting", "pool", "dids")
    arrays = ("cosine_K", "yes_K")
    return all(getattr(one, name) == getattr(other, name) for name in names) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) and getattr(one, name).dtype == np.float32 for name in arrays
    )


def write(path: Path, shards: list[list[ScoredList]], origin: Origin = ORIGIN, positives: int = 2) -> ScoreWriter:
    writer = ScoreWriter(path, **KEYS)
    with writer.writing():
        for lists in shards:
            writer.append(lists, [positives] * len(lists), origin)
    return writer


@pytest.fixture
def three_shards(tmp_path: Path) -> Path:
    one = [scored(0), scored(1, length=1), scored(2, "cirr_task7")]
    two = [scored(0, pool="global", length=7), scored(1, pool="global")]
    write(tmp_path / "table", [one, two, [scored(3, length=50)]])
    return tmp_path / "table"


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), max_size=4))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, lengths: list[list[int]]) -> None:
    path, number = tmp_path_factory.mktemp("table"), 0
    shards = []
    for row in lengths:
        shards.append([scored(number + place, length=length) for place, length in enumerate(row)])
        number += len(row)
    write(path, shards)
    flat = [one for shard in shards for one in shard]
    if not flat:
        with pytest.raises(StoreError, match="is empty"):
            ScoreTable(path)
        return
    table = ScoreTable(path)
    assert len(table) == len(flat)
    assert all(same(one, other) for one, other in zip(table, flat, strict=True))
    assert same(table[-1], flat[-1])
    with pytest.raises(IndexError):
        table[len(flat)]


def test_rows_can_be_read_without_us(three_shards: Path) -> None:
    rows = pq.read_table(three_shards / "00001.parquet").to_pylist()
    assert list(rows[0]) == ["qid", "did", "setting", "pool", "rank", "cosine", "yes", "retriever", "teacher", "revision"]
    first = scored(0, pool="global", length=7)
    assert [row["did"] for row in rows[:7]] == list(first.dids)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4]
    assert [row["yes"] for row in rows[:7]] == first.yes_K.tolist()
    assert {row["teacher"] for row in rows} == {"runs/teacher/model"}
    assert {row["qid"] for row in rows[:7]} == {"9:0"} and {row["qid"] for row in rows[7:]} == {"9:1"}


def test_settings_pools_and_counts(three_shards: Path) -> None:
    table = ScoreTable(three_shards)
    assert table.settings == ["mscoco_task0", "cirr_task7"]
    assert table.of_setting("mscoco_task0").tolist() == [0, 1, 3, 4, 5]
    assert table.of_setting("mscoco_task0", ["global"]).tolist() == [3, 4]
    assert table.of_setting("cirr_task7", ["global"]).tolist() == []
    assert table.of_setting("edis_task2").tolist() == []
    write(three_shards, [[scored(8)]], positives=0)
    counts = {
        "mscoco_task0": {"local": {"lists": 4, "with_positive": 3}, "global": {"lists": 2, "with_positive": 2}},
        "cirr_task7": {"local": {"lists": 1, "with_positive": 1}},
    }
    assert ScoreTable(three_shards).counts == counts
    assert json.loads((three_shards / "manifest.json").read_text())["counts"] == {"teacher-a": counts}


def test_few_shards_stay_in_memory(three_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_files, "SHARDS_IN_MEMORY", 2)
    table = ScoreTable(three_shards)
    for index in (5, 0, 3, 5, 2, 1, 4):
        assert same(table[index], ScoreTable(three_shards)[index])
        assert len(table._shards._kept) <= 2


def test_a_list_does_not_change_the_table(three_shards: Path) -> None:
    table = ScoreTable(three_shards)
    table[0].yes_K[:] = 0
    assert same(table[0], scored(0))


def test_one_of_several_teachers_must_be_named(three_shards: Path) -> None:
    before = ScoreTable(three_shards).fingerprint
    write(three_shards, [[scored(0, length=2)]], Origin("retriever-a", "teacher-b", "elsewhere"))
    with pytest.raises(StoreError, match=r"2 teachers; name one as revision: teacher-a \(runs/teacher/model\), teacher-b \(elsewhere\)"):
        ScoreTable(three_shards)
    with pytest.raises(StoreError, match="no revision 'teacher-c'"):
        ScoreTable(three_shards, "teacher-c")
    assert len(ScoreTable(three_shards, "teacher-a")) == 6
    assert ScoreTable(three_shards, "teacher-a").fingerprint == before
    (only,) = ScoreTable(three_shards, "teacher-b")
    assert same(only, scored(0, length=2))


def test_one_of_several_retrievers_must_be_named(three_shards: Path) -> None:
    write(three_shards, [[scored(0, length=3)]], Origin("retriever-b", "teacher-a", "runs/teacher/model"))
    with pytest.raises(StoreError, match="2 retrievers; name one as retriever: retriever-a, retriever-b"):
        ScoreTable(three_shards)
    assert len(ScoreTable(three_shards, retriever="retriever-b")) == 1


def test_known_probabilities_come_from_every_list_of_the_query(three_shards: Path) -> None:
    write(three_shards, [[scored(0, length=9)]], Origin("retriever-b", "teacher-a", "x"))
    write(three_shards, [[scored(0, length=2)]], Origin("retriever-a", "teacher-b", "x"))
    writer, short = ScoreWriter(three_shards, **KEYS), scored(0, length=2)
    assert set(writer.known("9:0", "mscoco_task0", "teacher-a")) == {f"9:{place}" for place in range(9)}
    assert writer.known("9:0", "mscoco_task0", "teacher-b") == dict(zip(short.dids, short.yes_K.tolist(), strict=True))
    assert writer.known("9:0", "cirr_task7", "teacher-a") == {}


def test_the_fingerprint_is_about_scores_not_paths(tmp_path: Path) -> None:
    tables = {}
    for name, label, length in (("a", "here", 4), ("b", "there", 4), ("c", "here", 5)):
        write(tmp_path / name, [[scored(0, length=length)]], Origin("r", "t", label))
        tables[name] = ScoreTable(tmp_path / name).fingerprint
    assert tables["a"] == tables["b"] != tables["c"]


@pytest.mark.parametrize("key", KEYS)
def test_scores_of_something_else_are_refused(three_shards: Path, key: str) -> None:
    other = {**KEYS, key: 7 if key == "depth" else "other"}
    with pytest.raises(StoreError, match=f"holds scores of {key} "):
        ScoreWriter(three_shards, **other)


def broken(**changes: object) -> ScoredList:
    return ScoredList(**{**vars(scored(7)), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ([scored(0)], "'9:0' has its local list of mscoco_task0 already"),
        ([scored(7), scored(7)], "given twice"),
        ([broken(yes_K=np.array([0.1, 0.2, np.nan, 0.3], np.float32))], "query 9:7.*not finite"),
        ([broken(yes_K=np.array([0.1, 0.2, 1.5, 0.3], np.float32))], "query 9:7.*no probability"),
        ([broken(cosine_K=np.array([0.1, np.inf, 0, 0], np.float32))], "query 9:7.*not finite"),
        ([broken(dids=("9:1", "9:2", "9:1", "9:3"))], "query 9:7.*twice"),
        ([broken(dids=("9:1",))], "query 9:7: 1 candidates, 4 cosines"),
        ([broken(dids=(), cosine_K=np.zeros(0, np.float32), yes_K=np.zeros(0, np.float32))], "query 9:7: 0 candidates"),
    ],
)
def test_lists_that_are_wrong_are_refused(three_shards: Path, lists: list[ScoredList], words: str) -> None:
    before = sorted((path.name, path.read_bytes()) for path in three_shards.glob("0*"))
    with pytest.raises(StoreError, match=words):
        ScoreWriter(three_shards, **KEYS).append(lists, [0] * len(lists), ORIGIN)
    assert sorted((path.name, path.read_bytes()) for path in three_shards.glob("0*")) == before
    assert len(ScoreTable(three_shards)) == 6


def test_a_shard_that_the_manifest_does_not_name_is_not_there(three_shards: Path) -> None:
    expected = ScoreTable(three_shards).fingerprint
    content = json.loads((three_shards / "manifest.json").read_text())
    content["shards"].pop()  # killed after the files, before the manifest
    content["counts"]["teacher-a"]["mscoco_task0"]["local"] = {"lists": 2, "with_positive": 2}
    (three_shards / "manifest.json").write_text(json.dumps(content))
    (three_shards / ".00002.parquet.x1").write_text("half a file")
    assert len(ScoreTable(three_shards)) == 5
    write(three_shards, [[scored(3, length=50)]])
    assert ScoreTable(three_shards).fingerprint == expected
    assert not list(three_shards.glob(".0*"))


def test_damage_is_named(three_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no score table here.*umr score"):
        ScoreTable(tmp_path)
    for file in ("00001.parquet", "00000.lists.parquet", "manifest.json"):
        copy = tmp_path / f"cut {file}"
        shutil.copytree(three_shards, copy)
        (copy / file).write_bytes((copy / file).read_bytes()[:-9])
        with pytest.raises(StoreError, match=rf"{file}: damaged"):
            ScoreTable(copy)
    data = bytearray((three_shards / "00001.parquet").read_bytes())
    data[len(data) // 3] ^= 255
    (three_shards / "00001.parquet").write_bytes(data)
    with pytest.raises(StoreError, match=r"00001\.parquet: damaged shard, contents have changed"):
        ScoreTable(three_shards).verify()
    (three_shards / "00002.parquet").unlink()
    with pytest.raises(StoreError, match=r"00002\.parquet: shard file is missing"):
        ScoreTable(three_shards)


def test_two_writers_at_once_are_refused(three_shards: Path) -> None:
    one, other = ScoreWriter(three_shards, **KEYS), ScoreWriter(three_shards, **KEYS)
    with one.writing():
        with pytest.raises(StoreError, match="another process is writing"), other.writing():
            pass
        with one.writing():  # nested in the same writer is fine
            one.append([scored(20)], [0], ORIGIN)
        with pytest.raises(StoreError, match="another process is writing"), other.writing():
            pass
    with other.writing():
        assert other.has("9:20", "mscoco_task0", "local", ORIGIN)
