"""The vector store: what is written is read, a killed writer loses one shard, damage is named."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import warm
from umr.errors import StoreError
from umr.items import Item
from umr.progress import quiet
from umr.store import VectorStore, VectorView, embed_into, locate
from unit.mbeir_fixture import BagEncoder

IDS = [f"3:{n}" for n in range(50)]
ITEMS = [Item.of(text=f"a sentence about thing {n} and thing {n % 7}", id=did) for n, did in enumerate(IDS)]


def open_store(path: Path, name: str = "bag") -> VectorStore:
    return VectorStore.create_or_resume(path, fingerprint=f"bag-of-words:{name}", dimension=BagEncoder.dimension, source="test")


def fill(store: VectorStore, encoder: BagEncoder, count: int = 50, shard_size: int = 8) -> None:
    with quiet():
        embed_into(store, encoder, IDS[:count], lambda start, stop: ITEMS[start:stop], "candidate", shard_size=shard_size)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "lock"}


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    store = open_store(tmp_path / "store")
    fill(store, BagEncoder())
    return store


def test_rows_come_back_in_order_as_unit_vectors(store: VectorStore) -> None:
    again = VectorStore(store.path)
    expected = BagEncoder().encode(ITEMS)
    vectors = again.read(0, len(again))
    assert again.ids.to_pylist() == IDS
    assert set(again.modalities.to_pylist()) == {"text"}
    assert vectors.dtype == np.float32
    assert np.abs(vectors - expected).max() < 1e-3
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    again.verify()


def test_any_way_of_reading_gives_the_same_bytes(store: VectorStore) -> None:
    whole = store.read(0, 999)
    pieces = np.concatenate([store.read(start, start + 7) for start in range(0, 50, 7)])
    shuffled = np.random.default_rng(0).permutation(50)
    assert whole.tobytes() == pieces.tobytes()
    assert whole[shuffled].tobytes() == store.take(shuffled).tobytes()
    assert whole[[3]].tobytes() == store.take(np.array([3])).tobytes()
    assert store.read(50, 60).shape == (0, BagEncoder.dimension)


def test_interrupted_at_every_call_it_ends_with_the_same_files(tmp_path: Path, store: VectorStore) -> None:
    resumed = tmp_path / "resumed"
    calls = 0
    for _ in range(20):
        encoder = BagEncoder(fail_at_call=1)
        try:
            fill(open_store(resumed), encoder)
            break
        except RuntimeError:
            calls += len(encoder.calls)
    assert contents(resumed) == contents(store.path)
    assert calls == 6  # one shard a run, and the last run finished the seventh


def test_killed_by_signal_it_resumes_at_the_first_missing_shard(tmp_path: Path, store: VectorStore) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from unit import test_store
        class Killed(test_store.BagEncoder):
            def encode(self, items, side="candidate", instruction=None):
                if len(self.calls) == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().encode(items, side, instruction)
        test_store.fill(test_store.open_store(Path(sys.argv[1])), Killed())
    """
    path = tmp_path / "killed"
    killed = warm.script(script, path)
    assert killed.wait() == -signal.SIGKILL, killed.stderr
    (path / ".00003.npy.leftover").write_bytes(b"half a shard")
    (path / "00003.npy").write_bytes(b"renamed, but not yet in the manifest")
    assert len(VectorStore(path)) == 24
    encoder = BagEncoder()
    fill(open_store(path), encoder)
    assert len(encoder.calls) == 4
    assert contents(path) == contents(store.path)


def test_a_full_store_asks_nothing_of_the_model(store: VectorStore) -> None:
    fill(open_store(store.path), BagEncoder(fail_at_call=0))


def test_another_model_side_or_source_is_refused(store: VectorStore) -> None:
    given = {"fingerprint": store.fingerprint, "dimension": store.dimension, "side": "candidate", "source": "test"}
    for change in ({"fingerprint": "other"}, {"dimension": 7}, {"side": "query"}, {"source": "else"}):
        with pytest.raises(StoreError, match="delete the folder or choose another"):
            VectorStore.create_or_resume(store.path, **{**given, **change})  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="choose another folder"):
        fill(store, BagEncoder("other"))


def test_other_items_are_refused(store: VectorStore) -> None:
    with pytest.raises(StoreError, match="other items"):
        embed_into(store, BagEncoder(), [*IDS[1:], "3:50"], lambda start, stop: ITEMS[start:stop], "candidate")
    with pytest.raises(StoreError, match="other items"):
        fill(store, BagEncoder(), count=40)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_useless_vectors_are_refused_by_id(tmp_path: Path, value: float, word: str) -> None:
    store = open_store(tmp_path)
    vectors = np.ones((3, store.dimension), np.float32)
    vectors[1] = value
    with pytest.raises(StoreError, match=f"'3:1' is {word}"):
        store.append(IDS[:3], ["text"] * 3, vectors)
    assert len(VectorStore(tmp_path)) == 0


def test_duplicate_ids_are_refused(store: VectorStore) -> None:
    vectors = np.ones((2, store.dimension), np.float32)
    with pytest.raises(StoreError, match="'3:7' is there twice"):
        store.append(["new", "3:7"], ["text"] * 2, vectors)
    with pytest.raises(StoreError, match="'new' is there twice"):
        store.append(["new", "new"], ["text"] * 2, vectors)
    with pytest.raises(StoreError, match="do not fit"):
        store.append(["new"], ["text"], vectors)


def test_damage_is_named(store: VectorStore) -> None:
    shard = store.path / "00002.npy"
    good = shard.read_bytes()
    shard.write_bytes(good[:-1])
    with pytest.raises(StoreError, match=r"00002\.npy: damaged shard"):
        VectorStore(store.path)
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    opened = VectorStore(store.path)
    with pytest.raises(StoreError, match=r"00002\.npy: damaged shard, contents have changed"):
        opened.verify()
    shard.write_bytes(b"\0" * len(good))
    with pytest.raises(StoreError, match=r"00002\.npy: damaged"):
        VectorStore(store.path).read(0, 50)
    shard.unlink()
    with pytest.raises(StoreError, match=r"00002\.npy: shard file is missing"):
        VectorStore(store.path)


def test_a_folder_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no vector store here"):
        VectorStore(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="damaged manifest"):
        VectorStore(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(StoreError, match="damaged manifest"):
        VectorStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another folder"):
        open_store(tmp_path / "file")


def test_two_writers_at_once_are_refused(store: VectorStore) -> None:
    with store.writing(), pytest.raises(StoreError, match="another process is writing"), VectorStore(store.path).writing():
        pass


def test_a_view_reads_several_stores_in_its_own_order(tmp_path: Path, store: VectorStore) -> None:
    other = open_store(tmp_path / "other")
    other.append(["x", "y"], ["image", "image,text"], np.eye(2, store.dimension, dtype=np.float32))
    ids = ["y", "3:49", "3:0", "x", "3:10"]
    view = VectorView([store, other], ids)
    assert len(view) == 5
    assert view.modalities.to_pylist() == ["image,text", "text", "text", "image", "text"]
    whole = view.read(0, 5)
    assert (
        whole.tobytes()
        == np.concatenate([other.take(np.array([1])), store.take(np.array([49, 0])), other.read(0, 1), store.read(10, 11)]).tobytes()
    )
    assert view.take(np.array([4, 0])).tobytes() == whole[[4, 0]].tobytes()
    assert locate([store, other], ["x", "nowhere", "3:1"]).tolist() == [50, -1, 1]
    with pytest.raises(StoreError, match="no vector of 'nowhere'"):
        VectorView([store], ["3:1", "nowhere"])
    with pytest.raises(StoreError, match="different models"):
        VectorView([store, open_store(tmp_path / "third", "other")], [])
