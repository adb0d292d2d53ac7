"""`umr embed`: every kind of corpus, the same bytes after every interruption, and every item embedded or rejected with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umr.bulk.crew import Crew
from umr.bulk.embed import Counts, embed
from umr.cli import main
from umr.errors import DataError, MediaError, RecipeError, StoreError
from umr.items import Item
from umr.models.embedder import Embedder
from umr.progress import quiet
from umr.store import VectorStore, embed_into
from unit.bulk.bags import COUNT, Bag, contents, write_manifest
from unit.mbeir_fixture import BagEncoder, write_tree
from unit.text_set import write_set


@pytest.fixture(autouse=True)
def _quiet():
    with quiet():
        yield


def run(corpus: Path, out: Path, **more: object) -> Counts:
    return embed(corpus, Bag(), out, rows=8, **more)  # type: ignore[arg-type]


def test_a_manifest_gives_the_store_that_appending_gives(tmp_path: Path):
    manifest = write_manifest(tmp_path)
    assert run(manifest, tmp_path / "out") == Counts(COUNT, COUNT, 0)
    made = VectorStore(tmp_path / "out")
    items = [Item.of(text=f"a sentence on thing {n} and thing {n % 7}", id=f"thing {n}") for n in range(COUNT)]
    store = VectorStore.create_or_resume(tmp_path / "appended", fingerprint=made.fingerprint, dimension=made.dimension, source=made.source)
    embed_into(store, BagEncoder(), [item.id or "" for item in items], lambda start, stop: items[start:stop], "candidate", shard_size=8)
    made.verify()
    assert contents(made.path).items() - contents(store.path).items() == {("embedding.json", contents(made.path)["embedding.json"])}
    assert contents(store.path).keys() < contents(made.path).keys()


def test_interrupted_at_any_call_it_ends_with_the_same_bytes(tmp_path: Path):
    manifest = write_manifest(tmp_path)
    run(manifest, tmp_path / "straight")
    for calls in (3, 1, 99):
        encoder = BagEncoder(fail_at_call=calls)
        try:
            embed(manifest, lambda device, encoder=encoder: encoder, tmp_path / "out", rows=8)
        except RuntimeError:
            assert len(VectorStore(tmp_path / "out")) % 8 == 0
    assert len(encoder.calls) == 7 - 3 - 1
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    embed(manifest, lambda device: BagEncoder(fail_at_call=0), tmp_path / "out", rows=8)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_pools_and_text_sets_keep_their_order(tmp_path: Path):
    tree, texts = write_tree(tmp_path / "tree"), write_set(tmp_path / "texts")
    assert run(tree, tmp_path / "local", pool="wiki_task1") == Counts(36, 36, 0)
    assert run(tree, tmp_path / "global", pool="global") == Counts(112, 112, 0)
    assert run(texts, tmp_path / "set") == Counts(24, 24, 0)
    assert VectorStore(tmp_path / "local").ids.to_pylist() == [f"1:{n}" for n in range(36)]
    everything = VectorStore(tmp_path / "global")
    assert everything.modalities.value_counts().to_pylist() == [{"values": "text", "counts": 40}, {"values": "image", "counts": 72}]
    assert VectorStore(tmp_path / "set").ids.to_pylist() == [f"doc {n}" for n in range(24)]


def test_parquet_gives_what_json_lines_give(tmp_path: Path):
    manifest = write_manifest(tmp_path)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus.parquet", row_group_size=13)
    for name in ("corpus.jsonl", "corpus.parquet"):
        run(tmp_path / name, tmp_path / "out" / name)
    one, other = (contents(tmp_path / "out" / name) for name in ("corpus.jsonl", "corpus.parquet"))
    assert {name for name in one if one[name] != other[name]} == {"manifest.json"}  # which tells the two files apart


def test_what_cannot_be_opened_is_rejected_with_its_reason(tmp_path: Path):
    tree = write_tree(tmp_path / "tree")
    lost, broken = tree / "mbeir_images" / "0-3.png", tree / "mbeir_images" / "0-20.png"
    lost.unlink()
    broken.write_bytes(b"no image")
    with pytest.raises(MediaError, match="0-3"):
        run(tree, tmp_path / "failed", pool="shapes_task0")
    assert run(tree, tmp_path / "out", pool="shapes_task0", on_error="skip") == Counts(36, 34, 2)
    store = VectorStore(tmp_path / "out")
    store.verify()
    assert set(store.ids.to_pylist()) == {f"0:{n}" for n in range(36)} - {"0:3", "0:20"}
    rejected = [json.loads(line) for path in sorted(store.path.glob("*.rejected.jsonl")) for line in path.read_text().splitlines()]
    assert [row["id"] for row in rejected] == ["0:3", "0:20"]
    assert str(lost) in rejected[0]["reason"] and str(broken) in rejected[1]["reason"]


def test_rejecting_changes_no_other_vector(tmp_path: Path):
    tree = write_tree(tmp_path / "tree")
    run(tree, tmp_path / "whole", pool="shapes_task0")
    (tree / "mbeir_images" / "0-3.png").unlink()
    run(tree, tmp_path / "out", pool="shapes_task0", on_error="skip")
    whole, left = VectorStore(tmp_path / "whole"), VectorStore(tmp_path / "out")
    assert np.array_equal(np.delete(whole.read(0, 36), 3, axis=0), left.read(0, 36))


def test_settings_of_a_store_do_not_change(tmp_path: Path):
    manifest = write_manifest(tmp_path)
    run(manifest, tmp_path / "out")
    with pytest.raises(RecipeError, match="made with rows 8, not 9; choose another folder"):
        embed(manifest, Bag(), tmp_path / "out", rows=9)
    with pytest.raises(RecipeError, match="made with on_error 'fail', not 'skip'"):
        run(manifest, tmp_path / "out", on_error="skip")
    with pytest.raises(StoreError, match="fingerprint"):
        embed(manifest, Bag("other"), tmp_path / "out", rows=8)
    manifest.write_text(manifest.read_text().replace("thing 3 ", "thing three "))
    with pytest.raises(StoreError, match="source"):
        run(manifest, tmp_path / "out")
    (tmp_path / "out" / "embedding.json").unlink()
    manifest = write_manifest(tmp_path)
    with pytest.raises(StoreError, match="umr embed did not make"):
        run(manifest, tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"text": "no id"}, "'id'"),
        ({"id": "x"}, "holds nothing to embed"),
        ({"id": "x", "image": "../x.png"}, "outside the manifest's folder"),
        ({"id": "x", "image": "a.png", "video": "b.mp4"}, "both an image and a video"),
        ({"id": "x", "text": 3}, "field text that is int"),
        ({"id": "thing 4", "text": "again"}, "thing 4"),
    ],
)
def test_a_wrong_row_is_named_before_anything_is_done(line: dict[str, object], says: str, tmp_path: Path):
    manifest = write_manifest(tmp_path)
    with manifest.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=says) as raised:
        run(manifest, tmp_path / "out")
    assert f"{manifest}:{COUNT + 1}" in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_settings_without_effect_are_errors(tmp_path: Path):
    tree, texts, manifest = write_tree(tmp_path / "tree"), write_set(tmp_path / "texts"), write_manifest(tmp_path)
    out = tmp_path / "out"
    for given, says in (
        ((manifest, {"pool": "global"}), "--pool has no effect"),
        ((manifest, {"split": "test"}), "--split has no effect"),
        ((texts, {"split": "test"}), "--split has no effect"),
        ((tree, {}), "which pool?.*global, shapes_task0, wiki_task1, fashioniq_task7"),
        ((tree, {"pool": "nowhere_task1"}), "no pool 'nowhere_task1'"),
        ((manifest, {"instruction": "Find it."}), "give --side query"),
    ):
        with pytest.raises(RecipeError, match=says):
            run(given[0], out, **given[1])
    with pytest.raises(DataError, match="neither a manifest"):
        run(tmp_path / "nothing", out)
    with pytest.raises(RecipeError, match="workers must be at least 1"):
        Crew(workers=0)
    with pytest.raises(RecipeError, match="threads are of several workers"):
        Crew(threads=2)
    assert not out.exists()


def test_the_command_embeds_pictures_and_texts_as_the_model_does(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]):
    tree = write_tree(tmp_path / "tree")
    words = ["embed", tree, "--pool", "global", "--model", tiny_model, "--out", tmp_path / "out", "--rows", "100"]
    assert main([str(word) for word in words]) == 0
    assert "112 of 112 items embedded, 0 rejected" in capsys.readouterr().out
    store = VectorStore(tmp_path / "out")
    items = [
        Item.of(image=tree / "mbeir_images" / "7-5.png", id="7:5"),
        Item.of(text="A red tree in a picture.", id="1:4"),
    ]
    rows = np.array([store.ids.to_pylist().index(item.id) for item in items])
    assert np.abs(store.take(rows) - Embedder.load(tiny_model).encode(items)).max() < 1e-3
    words = ["embed", write_manifest(tmp_path, 3), "--model", tiny_model, "--out", tmp_path / "asked"]
    words += ["--side", "query", "--instruction", "Find it."]
    assert main([str(word) for word in words]) == 0
    asked = Embedder.load(tiny_model).encode([Item.of(text="a sentence on thing 2 and thing 2")], "query", "Find it.")
    assert np.abs(VectorStore(tmp_path / "asked").read(2, 3) - asked).max() < 1e-3
