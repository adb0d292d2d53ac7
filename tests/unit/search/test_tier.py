import errno
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umr.errors import StoreError
from umr.search import derived
from umr.search.changes import changes_since
from umr.search.derived import base_of, bases, load
from umr.search.filters import Filter
from umr.search.plans import Limits
from umr.search.rows import Row
from umr.search.tier import Tier
from unit.search.cones import Scanned, brute, cones, recall, rows_of, table_of, vectors_of

DIMENSION = 24
LIMITS = Limits()
SCANNING = replace(LIMITS, exact=200, sample=30)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return table_of(cones(2000, DIMENSION))


@pytest.fixture(scope="module")
def queries_QD() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((6, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="module")
def tier(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Tier:
    return Tier.open(Scanned(table), tmp_path_factory.mktemp("index"), "1", DIMENSION)


WHERE = [
    None,
    Filter.parse({"tenth": 3}),
    Filter.parse({"tenth": {"gte": 5}, "modality": ["image", "video"]}),
    Filter.parse({"modality": "audio"}),
    Filter.parse({"nothing": 1}),
    Filter.parse({"id": ["text-000001", "video-000002"]}),
]


@pytest.mark.parametrize("modalities", [None, ["image"], ["video", "text"], []])
@pytest.mark.parametrize("where", WHERE)
def test_a_small_collection_is_searched_exactly(tier: Tier, table: pa.Table, queries_QD: np.ndarray, where: Filter, modalities: list[str]):
    assert tier.nearest(queries_QD, 7, where, modalities) == brute(table, queries_QD, 7, where, modalities)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_equal_vectors_are_ordered_by_id_wherever_they_are(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """Vectors of few values, so that most scores are shared: within a modality, between two, and with rows added later."""
    count = data.draw(st.integers(1, 25))
    ids = data.draw(st.lists(st.text("abé\U0001f600z", min_size=1, max_size=3), min_size=count, max_size=count, unique=True))
    values = st.sampled_from([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    parts = [rows_of([id], data.draw(st.sampled_from(["text", "image"])), np.array([data.draw(values)], np.float16)) for id in ids]
    built = data.draw(st.integers(0, count))
    table = pa.concat_tables(parts)
    tier = Tier.open(Scanned(table.slice(0, built)), tmp_path_factory.mktemp("index"), "1", 2)
    tier.refresh("2", table.slice(built).to_batches())
    k = data.draw(st.integers(1, 30))
    asked_QD = np.array([[2.0, 0.0], [0.6, 0.8]], np.float32)
    assert tier.nearest(asked_QD, k) == brute(table, asked_QD, k)


def test_nothing_asked_and_nothing_there(tier: Tier, tmp_path: Path, table: pa.Table, queries_QD: np.ndarray):
    assert tier.nearest(np.empty((0, DIMENSION), np.float32), 5) == []
    assert tier.nearest(queries_QD[:1], 0) == [[]]
    empty = Scanned(table.slice(0, 0))
    nothing = Tier.open(empty, tmp_path / "empty", "1", DIMENSION)
    assert nothing.nearest(queries_QD[:2], 5) == [[], []]
    Tier.open(empty, tmp_path / "empty", "1", DIMENSION)
    assert empty.scans == 1
    nothing.refresh("2", table.slice(0, 3).to_batches())
    assert len(nothing.nearest(queries_QD[:1], 5)[0]) == 3


@pytest.mark.parametrize(
    "asked_QD", [np.ones((1, 5), np.float32), np.ones(DIMENSION, np.float32), np.full((1, DIMENSION), np.nan, np.float32)]
)
def test_queries_that_cannot_be_compared(tier: Tier, asked_QD: np.ndarray):
    with pytest.raises(StoreError, match=r"^(queries of shape .*24 numbers|a query's vector is not finite)"):
        tier.nearest(asked_QD, 5)


def test_rows_of_another_dimension(table: pa.Table, tmp_path: Path):
    with pytest.raises(StoreError, match="vector of 8 numbers"):
        Tier.open(Scanned(table), tmp_path, "1", 8)
    assert not list(tmp_path.glob("*base*")) and not list(tmp_path.glob(".unfinished*"))


def test_an_index_is_made_once(table: pa.Table, tmp_path: Path, queries_QD: np.ndarray):
    scan = Scanned(table)
    first = Tier.open(scan, tmp_path, "version/1", DIMENSION, SCANNING)
    again = Tier.open(scan, tmp_path, "version/1", DIMENSION, SCANNING)
    assert scan.scans == 1
    assert again.nearest(queries_QD, 10) == first.nearest(queries_QD, 10)
    assert again.stats() == first.stats()


def changed(table: pa.Table, seed: int, removed: int = 20, moved: int = 15, added: int = 30) -> tuple[pa.Table, pa.Table, list[str]]:
    """The table after some changes, the rows that are new or changed, and the ids that are gone."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(table))
    gone = [table["id"][int(place)].as_py() for place in order[:removed]]
    moved_ids = [table["id"][int(place)].as_py() for place in order[removed : removed + moved]]
    vectors_ND = draw.standard_normal((moved + added, DIMENSION))
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    fresh = pa.concat_tables(
        [
            rows_of(moved_ids[:5], "audio", vectors_ND[:5].astype(np.float16)),
            rows_of(moved_ids[5:], "image", vectors_ND[5:moved].astype(np.float16)),
            rows_of([f"new-{seed}-{number}" for number in range(added)], "video", vectors_ND[moved:].astype(np.float16)),
        ]
    )
    kept = table.filter(pa.array(~np.isin(table["id"].to_pylist(), gone + moved_ids)))
    return pa.concat_tables([kept, fresh]), fresh, gone


def test_changes_are_followed(table: pa.Table, tmp_path: Path, queries_QD: np.ndarray):
    tier, now = Tier.open(Scanned(table), tmp_path, "0", DIMENSION), table
    for version in range(1, 4):
        now, fresh, gone = changed(now, version)
        tier.refresh(str(version), fresh.to_batches(max_chunksize=10), gone)
        assert tier.version == str(version)
        for where in (None, Filter.parse({"tenth": 3})):
            assert tier.nearest(queries_QD, 40, where) == brute(now, queries_QD, 40, where)
    assert tier.stats()["rows"] == len(now)
    assert not tier.worn


def test_an_earlier_index_is_brought_up_to_date(table: pa.Table, tmp_path: Path, queries_QD: np.ndarray):
    Tier.open(Scanned(table), tmp_path, "1", DIMENSION)
    base = base_of(tmp_path, "1")
    now, *_ = changed(table, 1)
    scan = Scanned(now)
    tier = Tier.open(scan, tmp_path, "2", DIMENSION)
    assert tier.nearest(queries_QD, 40) == brute(now, queries_QD, 40)
    assert bases(tmp_path) == [base], "nothing was built"
    again = Tier.open(scan, tmp_path, "2", DIMENSION)
    assert again.nearest(queries_QD, 40) == brute(now, queries_QD, 40)
    assert scan.scans == 2, "the changes were kept"


def test_a_change_of_metadata_alone_is_seen(table: pa.Table, tmp_path: Path, queries_QD: np.ndarray):
    Tier.open(Scanned(table), tmp_path, "1", DIMENSION)
    row = table.slice(3, 1)
    other = row.set_column(row.schema.get_field_index("metadata"), "metadata", pa.array(['{"special":true}']))
    other = other.set_column(row.schema.get_field_index("changed"), "changed", pa.array([2**60]))
    now = pa.concat_tables([table.slice(0, 3), table.slice(4), other])
    partitions = load(base_of(tmp_path, "1"), DIMENSION, LIMITS)
    assert partitions
    found = changes_since(partitions, Scanned(now), 100)
    assert found is not None and found.rows is not None
    assert (found.rows["id"].to_pylist(), list(found.gone)) == (row["id"].to_pylist(), [])
    tier = Tier.open(Scanned(now), tmp_path, "2", DIMENSION)
    special = Filter.parse({"special": True})
    assert tier.nearest(queries_QD, 5, special) == brute(now, queries_QD, 5, special)


def test_rows_that_were_found_are_read_as_they_are_now(tmp_path: Path):
    table = table_of(cones(300, DIMENSION))
    tier = Tier.open(Scanned(table), tmp_path, "1", DIMENSION)
    assert tier.rows(["text-000001"], "1") == {}, "not found yet"
    (near,) = tier.nearest(vectors_of(table)[:1].astype(np.float32), 20)
    rows = tier.rows([*(one.id for one in near), "unknown"], "1", vectors=True)
    assert len(rows) == 20
    for id, row in rows.items():
        assert (
            row.vector_D is not None
            and row.vector_D.tobytes() == vectors_of(table.filter(pc.equal(table["id"], id))).astype(np.float16).tobytes()
        )
        assert row == Row(
            id,
            f"{id}.file",
            id.split("-")[0],
            f"digest of {id}",
            row.vector_D,
            f"{row.modality} {id}",
            thumbnail=id.encode(),
            metadata=row.metadata,
        )
        assert set(row.metadata) == {"meaning", "tenth"}
    moved, gone, *others = [one.id for one in near]
    tier.refresh("2", rows_of([moved], "audio", np.ones((1, DIMENSION), np.float16)).to_batches(), [gone])
    assert tier.rows([moved, gone, *others], "1") == {}, "of an earlier version"
    assert set(tier.rows([moved, gone, *others], "2")) == set(others)


def test_many_changes_make_a_new_index_and_the_old_one_goes(tmp_path: Path):
    vectors_ND = np.eye(4, dtype=np.float16)[np.arange(6000) % 4]
    first = rows_of([f"a{number}" for number in range(100)], "text", vectors_ND[:100])
    many = rows_of([f"b{number}" for number in range(6000)], "text", vectors_ND)
    tier = Tier.open(Scanned(first), tmp_path, "1", 4)
    tier.refresh("2", many.to_batches())
    assert tier.worn
    now = pa.concat_tables([first, many])
    rebuilt = Tier.open(Scanned(now), tmp_path, "2", 4)
    assert not rebuilt.worn
    assert rebuilt.stats()["changed_since_built"] == 0
    assert bases(tmp_path) == [base_of(tmp_path, "2")]
    asked_QD = np.array([[1, 2, 0, 0]], np.float32)
    assert tier.nearest(asked_QD, 9) == brute(now, asked_QD, 9), "who holds the old one goes on"


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["manifest.json", "*.columns.arrow", "*.vectors.f16", "*.signs.u8", "*.mean.f32"])
def test_a_damaged_index_is_made_again(table: pa.Table, tmp_path: Path, queries_QD: np.ndarray, name: str, how: str):
    scan = Scanned(table)
    few = replace(SCANNING, sample=3)
    expected = Tier.open(scan, tmp_path, "1", DIMENSION, few).nearest(queries_QD, 10)
    DAMAGES[how](next(base_of(tmp_path, "1").glob(name)))
    assert Tier.open(scan, tmp_path, "1", DIMENSION, few).nearest(queries_QD, 10) == expected
    assert scan.scans == 2


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"format": 99}', json.dumps({"format": 2, "dimension": DIMENSION, "files": {}, "partitions": [{}]})]
)
def test_a_manifest_of_something_else_is_no_index(table: pa.Table, tmp_path: Path, content: str):
    scan = Scanned(table)
    Tier.open(scan, tmp_path, "1", DIMENSION)
    (base_of(tmp_path, "1") / "manifest.json").write_text(content)
    Tier.open(scan, tmp_path, "1", DIMENSION)
    assert scan.scans == 2


def test_a_damaged_delta_is_found_again(table: pa.Table, tmp_path: Path, queries_QD: np.ndarray):
    Tier.open(Scanned(table), tmp_path, "1", DIMENSION)
    now, *_ = changed(table, 1)
    scan = Scanned(now)
    Tier.open(scan, tmp_path, "2", DIMENSION)
    delta = tmp_path / "delta.arrow"
    delta.write_bytes(delta.read_bytes()[:-30])
    assert Tier.open(scan, tmp_path, "2", DIMENSION).nearest(queries_QD, 20) == brute(now, queries_QD, 20)
    assert scan.scans == 4


def test_what_a_killed_builder_left_is_cleared(table: pa.Table, tmp_path: Path):
    left = tmp_path / ".unfinished-abc"
    left.mkdir(parents=True)
    (left / "0.vectors.f16").write_bytes(b"half")
    Tier.open(Scanned(table), tmp_path, "1", DIMENSION)
    assert not left.exists()


def test_a_build_that_fails_leaves_nothing(table: pa.Table, tmp_path: Path, queries_QD: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(derived, "_seal", full)
        with pytest.raises(StoreError, match=r"the index cannot be written \(No space left on device\)"):
            Tier.open(Scanned(table), tmp_path, "1", DIMENSION)
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}
    assert Tier.open(Scanned(table), tmp_path, "1", DIMENSION).nearest(queries_QD, 5) == brute(table, queries_QD, 5)


def test_of_several_that_open_at_once_one_builds(table: pa.Table, tmp_path: Path, queries_QD: np.ndarray):
    scan = Scanned(table)
    with ThreadPoolExecutor(4) as pool:
        tiers = list(pool.map(lambda _: Tier.open(scan, tmp_path, "1", DIMENSION), range(4)))
    assert scan.scans == 1
    assert len({str(tier.nearest(queries_QD, 3)) for tier in tiers}) == 1


def test_searches_go_on_while_rows_change(tmp_path: Path):
    """Every answer is that of some version, whole: rows come in pairs of equal vectors."""
    pairs = [rows_of([f"a{number}", f"b{number}"], "text", np.array([[1, 0], [1, 0]], np.float16)) for number in range(60)]
    tier = Tier.open(Scanned(pairs[0]), tmp_path, "0", 2)
    done = threading.Event()

    def ask() -> list[int]:
        counts = []
        while not done.is_set():
            counts.append(len(tier.nearest(np.array([[1, 0]], np.float32), 200)[0]))
        return counts

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for number, pair in enumerate(pairs[1:], 1):
            tier.refresh(str(number), pair.to_batches(), [f"a{number - 1}", f"b{number - 1}"] if number % 2 else [])
        done.set()
    counts = [count for one in asking for count in one.result()]
    assert counts and all(count % 2 == 0 for count in counts)
    assert tier.stats()["rows"] == 60


def test_a_folder_that_cannot_be_written(table: pa.Table, tmp_path: Path):
    (tmp_path / "index").write_text("a file")
    with pytest.raises(StoreError, match=r"index: cannot hold an index"):
        Tier.open(Scanned(table), tmp_path / "index", "1", DIMENSION)


@pytest.fixture(scope="module")
def scanned() -> tuple[pa.Table, np.ndarray]:
    """Enough rows and numbers for sign bits, and vectors of the other modality to ask with."""
    made = cones(5000, 256, {"text": 0.95, "image": 0.05})
    return table_of(made), made["image"][0][:40].astype(np.float32)


def test_a_larger_partition_is_scanned_and_says_so(scanned: tuple[pa.Table, np.ndarray], tmp_path: Path):
    table, asked_QD = scanned
    tier = Tier.open(Scanned(table), tmp_path, "1", 256, replace(LIMITS, exact=1000))
    assert recall(tier.nearest(asked_QD, 10), brute(table, asked_QD, 10)) >= 0.97
    parts = tier.stats()["partitions"]
    assert (parts["image"]["search"], parts["text"]["search"]) == ("exact", "signs")
    assert parts["text"]["recall"] >= 0.97 and parts["text"]["candidates"] >= 400
    assert tier.nearest(asked_QD[:1], 10)[0] == tier.nearest(asked_QD, 10)[0], "an answer does not depend on what else is asked"


def test_removed_rows_are_not_found_by_scanning(scanned: tuple[pa.Table, np.ndarray], tmp_path: Path):
    """The nearest 300 go, so that most of what sign bits list first is gone."""
    table, asked_QD = scanned
    tier = Tier.open(Scanned(table), tmp_path, "1", 256, replace(LIMITS, exact=1000))
    gone = [near.id for near in brute(table, asked_QD[:1], 300)[0]]
    tier.refresh("2", gone=gone)
    now = table.filter(pa.array(~np.isin(table["id"].to_pylist(), gone)))
    assert recall(tier.nearest(asked_QD[:5], 10), brute(now, asked_QD[:5], 10)) >= 0.9
    assert not {near.id for near in tier.nearest(asked_QD[:1], 100)[0]} & set(gone)
