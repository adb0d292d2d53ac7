import json
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.data import jsonl
from umr.data.ids import HASHED, pack, unpack
from umr.data.jsonl import JsonlIndex
from umr.errors import DataError


def write(path, records):
    path.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records), "utf-8")
    return path


def candidates(count):
    return [{"did": f"{i % 10}:{i}", "txt": f"text {i} ä"} for i in range(count)]


@given(st.integers(0, (1 << 23) - 1), st.integers(0, (1 << 40) - 1))
def test_m_beir_ids_are_packed_without_loss(dataset, number):
    id = f"{dataset}:{number}"
    assert pack(id) < HASHED
    assert unpack(pack(id)) == id


@given(st.text(min_size=1))
def test_other_ids_are_hashed(id):
    key = pack(id)
    assert 0 <= key < 1 << 64
    assert (unpack(key) == id) if key < HASHED else (unpack(key) is None)


@pytest.mark.parametrize("id", ["0:007", "00:7", "+1:2", "1:2:3", "1:", ":1", "8388608:1", f"1:{1 << 40}", "٣:٤", "1:2\n"])
def test_ids_that_merely_look_packable_stay_apart_from_those_that_are(id):
    assert pack(id) >= HASHED


@given(ids=st.lists(st.one_of(st.from_regex(r"\A[0-9]{1,2}:[0-9]{1,3}\Z"), st.text(min_size=1, max_size=5)), unique=True))
def test_every_id_finds_its_record(tmp_path_factory, ids):
    path = write(tmp_path_factory.mktemp("index") / "a.jsonl", [{"id": id, "row": row} for row, id in enumerate(ids)])
    index = JsonlIndex(path, "id")
    assert len(index) == len(ids)
    assert list(index.ids) == ids
    assert [index[id]["row"] for id in ids] == list(range(len(ids)))
    assert index.find(ids).tolist() == list(range(len(ids)))
    assert [record["id"] for record in index.get_many(ids[::-1])] == ids[::-1]
    assert "not there at all" not in index


def test_what_is_missing_is_named(tmp_path):
    index = JsonlIndex(write(tmp_path / "a.jsonl", candidates(20)))
    assert index.find(["3:3", "3:4", "x"]).tolist() == [3, -1, -1]
    assert "3:3" in index
    assert 3 not in index
    with pytest.raises(DataError, match=r"a\.jsonl: has no record with did '3:4'"):
        index["3:4"]
    with pytest.raises(DataError, match="'7:8'"):
        index.get_many(["7:7", "7:8"])
    with pytest.raises(IndexError):
        index.at(20)
    with pytest.raises(IndexError):
        index.ids[20]
    assert index.ids[-1] == "9:19"
    assert index.ids[18:] == ["8:18", "9:19"]


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        JsonlIndex(tmp_path / "no.jsonl")
    with pytest.raises(DataError, match="is not a file"):
        JsonlIndex(tmp_path)


def test_empty_file_and_file_without_final_newline(tmp_path):
    empty = JsonlIndex(write(tmp_path / "empty.jsonl", []))
    assert len(empty) == 0
    assert "0:1" not in empty
    (tmp_path / "cut.jsonl").write_text('{"did": "0:1"}\n\n{"did": "0:2"}')
    cut = JsonlIndex(tmp_path / "cut.jsonl")
    assert cut["0:2"] == {"did": "0:2"}
    assert [line for line, _ in cut.numbered()] == [1, 3]
    assert cut.line(1) == 3


BROKEN = [
    ('{"did": "0:1", "txt": ', "is not valid JSON"),
    ('{"did": "0:1"} {"did": "0:2"}', "is not valid JSON"),
    ("[1, 2]", "must hold a JSON object, not list"),
    ('{"txt": "no id"}', "must have a non-empty string 'did'"),
    ('{"did": 5}', "must have a non-empty string 'did', not 5"),
    ('{"did": ""}', "must have a non-empty string 'did'"),
    ("[" * 100_000, "is not usable JSON"),
]


@pytest.mark.parametrize(("line", "words"), BROKEN)
def test_broken_line_is_named_or_left_out(tmp_path, line, words):
    path = write(tmp_path / "a.jsonl", [*candidates(2), line, {"did": "9:9"}])
    with pytest.raises(DataError, match=r"a\.jsonl:3: ") as caught:
        JsonlIndex(path)
    assert words in str(caught.value)
    index = JsonlIndex(path, on_error="skip")
    assert list(index.ids) == ["0:0", "1:1", "9:9"]
    assert [(problem.line, problem.kind) for problem in index.problems] == [(3, "malformed")]
    assert words in index.problems[0].what
    assert index["1:1"]["txt"] == "text 1 ä"
    assert [line for line, _ in index.numbered()] == [1, 2, 4]


def test_invalid_utf8_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"did": "0:1"}\n{"did": "0:2", "txt": "\xff"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: is not valid UTF-8"):
        JsonlIndex(tmp_path / "a.jsonl")


@pytest.mark.parametrize("id", ["4:4", "a name"])
def test_duplicate_ids_name_both_lines(tmp_path, id):
    path = write(tmp_path / "a.jsonl", [{"did": id, "n": 1}, {"did": "0:1"}, {"did": id, "n": 2}, {"did": id, "n": 3}])
    with pytest.raises(DataError, match=rf"a\.jsonl:3: did '{id}' was already used in line 1"):
        JsonlIndex(path)
    index = JsonlIndex(path, on_error="skip")
    assert len(index) == 2
    assert index[id]["n"] == 1
    assert [(problem.kind, problem.line) for problem in index.problems] == [("duplicate", 3), ("duplicate", 4)]
    repeated = JsonlIndex(path, unique=False)
    assert len(repeated) == 4
    assert repeated[id]["n"] == 1
    assert repeated.at(3)["n"] == 3


def test_meeting_hashes_are_an_error_not_a_duplicate(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", [{"did": "one"}, {"did": "two"}])
    monkeypatch.setattr("umr.data.jsonl_scan.pack", lambda id: HASHED | 1)
    with pytest.raises(DataError, match="'one' and 'two' have the same 64-bit hash"):
        JsonlIndex(path, on_error="skip")


def test_hash_of_another_id_is_not_taken_for_a_hit(tmp_path, monkeypatch):
    index = JsonlIndex(write(tmp_path / "a.jsonl", [{"did": "one"}]))
    monkeypatch.setattr(jsonl, "pack", lambda id: pack("one"))
    assert "two" not in index


def test_records_without_ids_are_reached_by_row(tmp_path):
    index = JsonlIndex(write(tmp_path / "a.jsonl", [{"a": 1}, {"a": 2}]), key=None)
    assert [index.at(row)["a"] for row in range(2)] == [1, 2]
    with pytest.raises(DataError, match="without a key"):
        index.find(["0:0"])
    with pytest.raises(DataError, match="must hold a JSON object"):
        JsonlIndex(write(tmp_path / "b.jsonl", ["3"]), key=None)


def test_large_files_keep_their_index_and_notice_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "CACHE_FROM_BYTES", 0)
    path = write(tmp_path / "a.jsonl", candidates(50))
    built = JsonlIndex(path)
    (kept,) = (tmp_path / ".umr-index").iterdir()

    def no_scan(*arguments):
        raise AssertionError("scanned again")

    with monkeypatch.context() as patch:
        patch.setattr(jsonl, "scan", no_scan)
        loaded = JsonlIndex(path)
        assert list(loaded.ids) == list(built.ids)
        assert loaded["7:7"] == built["7:7"]
    write(path, candidates(60))
    assert len(JsonlIndex(path)) == 60
    (renewed,) = (tmp_path / ".umr-index").iterdir()
    assert renewed != kept
    renewed.write_bytes(renewed.read_bytes()[:200])
    assert JsonlIndex(path)["9:59"]["did"] == "9:59"


def test_folder_that_cannot_be_written_sends_the_index_to_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "CACHE_FROM_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path / "a.jsonl", candidates(5))
    (tmp_path / ".umr-index").write_text("in the way")
    assert len(JsonlIndex(path)) == 5
    assert len(list((tmp_path / "cache").rglob("a.jsonl.*.npy"))) == 1


def test_index_left_out_lines_of_is_never_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "CACHE_FROM_BYTES", 0)
    JsonlIndex(write(tmp_path / "a.jsonl", [*candidates(2), "{"]), on_error="skip")
    assert not (tmp_path / ".umr-index").exists()


def test_file_changed_under_an_open_index_is_noticed(tmp_path):
    path = write(tmp_path / "a.jsonl", candidates(5))
    index = JsonlIndex(path)
    write(path, [{"did": "5:5", "txt": "longer than before"}] * 5)
    with pytest.raises(DataError, match="was changed"):
        index.at(0)


def test_threads_and_pickles_read_the_same(tmp_path):
    index = JsonlIndex(write(tmp_path / "a.jsonl", candidates(200)))
    copy = pickle.loads(pickle.dumps(index))
    assert copy["3:3"] == index["3:3"]
    wrong = []

    def read(seed):
        for row in np.random.default_rng(seed).integers(0, 200, 500):
            if index.at(int(row))["txt"] != f"text {row} ä":
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
