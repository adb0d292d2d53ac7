"""Collections on LanceDB: made, filled, searched, changed, by several threads and processes; and the command line over them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tiny import checkpoint
from umr import Collection
from umr.cli import main
from umr.errors import DataError, MediaError, ModelError, RecipeError, StoreError
from umr.evaluation.calibration import Calibration
from umr.items import Item, Query, Video
from umr.models.embedder import Embedder
from umr.search.hits import Results
from unit.bag_reranker import BagReranker
from unit.mbeir_fixture import BagEncoder
from unit.search.photo_rows import photo_rows

RED, BLUE = (PIL.Image.new("RGB", (20, 10), colour) for colour in ((220, 20, 20), (20, 20, 220)))
SRC = Path(__file__).parents[3] / "src"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """36 rows of a folder. Not to be changed."""
    folder = tmp_path_factory.mktemp("filled")
    collection = Collection.create(folder / "photos.umr", BagEncoder(), root=folder / "photos")
    collection.table.put(photo_rows(folder / "photos"), [])
    return collection


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Collection]:
    with Collection.create(tmp_path / "own.umr", BagEncoder()) as collection:
        yield collection


def as_said(found: Results) -> list[tuple[Any, ...]]:
    return [(hit.id, hit.rank, hit.score, dict(hit.scores)) for hit in found]


def in_order(found: Results, cosines: dict[str, float]) -> None:
    """All rows, by cosine; scores that are equal but for rounding may stand in either order."""
    assert set(found.ids) == set(cosines) and len(found) == len(cosines)
    assert [hit.score for hit in found] == pytest.approx(sorted(cosines.values(), reverse=True), abs=1e-5)
    assert [hit.score for hit in found] == pytest.approx([cosines[id] for id in found.ids], abs=1e-5)


# --- opening


def test_what_was_made_is_opened_again(filled: Collection):
    with Collection.open(filled.folder, BagEncoder()) as again:
        assert again.settings == filled.settings and len(again) == 36
        assert as_said(again.search("a blue boat")) == as_said(filled.search("a blue boat"))
        stats = again.stats()
    assert stats.modalities == {"text": 12, "image": 12, "image,text": 12} and stats.rows == 36
    assert json.loads(json.dumps(stats.to_json()))["dimension"] == 64


def test_another_model_is_refused(filled: Collection):
    with pytest.raises(StoreError, match="open it with the model that made it"):
        Collection.open(filled.folder, BagEncoder("other"))


def test_the_model_is_loaded_when_it_is_needed(filled: Collection):
    opened = Collection.open(filled.folder)  # the settings name no model that could be loaded
    assert opened.search("a blue boat", mode="words").ids == filled.search("a blue boat", mode="words").ids
    assert opened.more_like("row 05").ids
    with pytest.raises(ModelError, match="a loaded BagEncoder"):
        opened.search("a blue boat")


def test_folders_that_are_no_collections(filled: Collection, tmp_path: Path):
    with pytest.raises(StoreError, match="no collection here"):
        Collection.open(tmp_path)
    with pytest.raises(StoreError, match="holds a collection already"):
        Collection.create(filled.folder, BagEncoder())
    with pytest.raises(RecipeError, match="model_name has no effect"):
        Collection.create(tmp_path / "x", "somewhere", model_name="y")
    assert not (tmp_path / "x").exists()


# --- searching


def test_every_way_to_ask(filled: Collection, tmp_path: Path):
    RED.save(tmp_path / "red.png")
    as_bytes = BytesIO()
    RED.save(as_bytes, "png")
    asked = [filled.search(image=one).ids for one in (RED, tmp_path / "red.png", as_bytes.getvalue())]
    assert asked[0] == asked[1] == asked[2] == filled.search(Item.of(image=RED)).ids
    assert as_said(filled.search(text="red", image=BLUE)) == as_said(filled.search(Item.of(text="red", image=BLUE)))
    assert as_said(filled.search(Query(Item.of(text="boat"), "blue"))) == as_said(filled.search("boat", instruction="blue"))
    assert filled.search("boat", instruction="blue").ids != filled.search("boat").ids
    assert filled.search(where="year>=2040", text="boat", k=36).ids != []
    assert {hit.modality for hit in filled.search("boat", modalities=["image", "text"], k=36)} == {"image", "text"}


def test_hits_match_brute_force(filled: Collection):
    rows = photo_rows(filled.folder.parent / "photos")
    query_D = BagEncoder().encode([Item.of(text="a blue boat")], "query")[0]
    cosines = {row.id: float(row.vector_D.astype(np.float32) @ query_D) for row in rows}
    in_order(filled.search("a blue boat", k=36), cosines)


def test_the_collections_own_instruction(tmp_path: Path):
    collection = Collection.create(tmp_path / "c", BagEncoder(), instruction="blue things")
    collection.add([Item.of(text="blue"), Item.of(text="boat")])
    assert collection.search("boat", instruction="")[0].score > collection.search("boat")[0].score + 0.005
    assert as_said(collection.search("boat")) == as_said(collection.search("boat", instruction="blue things"))


def test_settings_of_another_model_are_refused(filled: Collection, tmp_path: Path):
    Calibration(offsets={"text": {"image": 0.1}}, retriever="another").save(tmp_path / "c.json")
    with pytest.raises(RecipeError, match="calibration was fitted for the model another"):
        filled.search("a", calibration=tmp_path / "c.json")
    with pytest.raises(RecipeError, match="a reranker is a Reranker or where to load one from, not int"):
        filled.search("a", reranker=3)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="instruction has no effect in mode words"):
        filled.search("a", mode="words", instruction="Find it")
    with pytest.raises(DataError, match="filter"):
        filled.search("a", where="year is 2020")


def test_more_like_a_row_leaves_it_out(filled: Collection):
    rows = {row.id: row.vector_D.astype(np.float32) for row in photo_rows(filled.folder.parent / "photos")}
    query_D = rows["row 05"] / np.linalg.norm(rows["row 05"])  # in fp16 it is not quite of unit length
    in_order(filled.more_like("row 05", k=36), {id: float(rows[id] @ query_D) for id in rows if id != "row 05"})
    assert {hit.modality for hit in filled.more_like("row 05", modalities="image", where={"colour": "blue"})} == {"image"}
    with pytest.raises(DataError, match="has no row 'row 99'"):
        filled.more_like("row 99")


def test_asearch_leaves_the_event_loop_free(filled: Collection):
    held, seen = threading.Event(), []

    class Waits(BagEncoder):
        def encode(self, *arguments: Any, **more: Any) -> np.ndarray:
            assert held.wait(10)
            return super().encode(*arguments, **more)

    async def both() -> Results:
        waiting = asyncio.create_task(Collection.open(filled.folder, Waits()).asearch("a blue boat", k=3))
        await asyncio.sleep(0.05)
        seen.append("loop runs")
        held.set()
        return await waiting

    assert asyncio.run(both()).ids == filled.search("a blue boat", k=3).ids
    assert seen == ["loop runs"]


# --- changing


def test_added_items_are_found_opened_and_removed(empty: Collection, tmp_path: Path):
    picture = tmp_path / "elsewhere.jpeg"
    BLUE.save(picture)
    items = [
        Item.of(text="a green door", id="door"),
        Item.of(image=RED, id="red"),
        Item.of(image=picture, text="a blue boat", id="boat"),
    ]
    assert empty.add(items, [{"year": 2001}, {}, {"tags": ["sea"]}]) == ["door", "red", "boat"]
    picture.unlink()  # the collection has its own
    assert empty.search("a blue boat", k=1).ids == ["boat"]
    hit = empty.search(where={"tags": "sea"}, text="x")[0]
    assert (hit.id, hit.source, hit.metadata, hit.modality) == ("boat", "", {"tags": ["sea"]}, "image,text")
    assert hit.media is not None and hit.media.is_relative_to(empty.folder.resolve()) and hit.media.suffix == ".jpeg"
    assert PIL.Image.open(BytesIO(hit.thumbnail)).format == "WEBP"
    for row in empty.get(["door", "red", "boat"]):
        assert empty.item(row.id).digest == row.digest
    assert empty.item("red").parts[0].open().getpixel((3, 3)) == (220, 20, 20)
    kept = hit.media
    assert empty.delete(["boat", "nobody"]) == 1
    assert not kept.exists() and len(empty) == 2
    with pytest.raises(DataError, match="has no row 'boat'"):
        empty.item("boat")


def test_adding_again_replaces_and_cleans_up(empty: Collection):
    empty.add([Item.of(image=RED, id="x")])
    first = empty.media(empty.get(["x"])[0])
    empty.add([Item.of(image=RED, id="x")], {"seen": 2})
    again = empty.media(empty.get(["x"])[0])
    assert first == again and again is not None and again.is_file()
    empty.add([Item.of(image=BLUE, id="x")])
    last = empty.media(empty.get(["x"])[0])
    assert last is not None and last.is_file() and not again.exists()
    assert len(empty) == 1 and empty.add([Item.of(text="no id")]) == empty.add([Item.of(text="no id")])
    assert len(empty) == 2


def test_files_below_the_root_stay_where_they_are(tmp_path: Path):
    (tmp_path / "root" / "deep").mkdir(parents=True)
    RED.save(tmp_path / "root" / "deep" / "a b.png")
    collection = Collection.create(tmp_path / "c", BagEncoder(), root=tmp_path / "root")
    collection.add([Item.of(image=tmp_path / "root" / "deep" / "a b.png", id="a")])
    (row,) = collection.get(["a"])
    assert row.media == "deep/a b.png" and collection.item("a").digest == row.digest
    collection.delete(["a"])
    assert (tmp_path / "root" / "deep" / "a b.png").is_file()


@pytest.mark.parametrize(
    ("items", "metadata", "line"),
    [
        ([Item.of(images=[RED, BLUE], id="two")], None, "item two: holds 2 images or videos"),
        ([Item.of(video=Video([RED, BLUE]), id="film")], None, "item film: a video of frames cannot be kept"),
        ([Item.of(text="a", id="x"), Item.of(text="b", id="x")], None, "item x: occurs twice"),
        ([Item.of(text="a", id="x")], {"size": {"width": 3}}, "x: metadata field 'size'"),
        ([Item.of(text="a")], [{}, {}], "2 mappings of metadata for 1 items"),
        ([Item.of(image=b"rubbish", id="x")], None, "is not an image"),
    ],
)
def test_items_that_are_refused(empty: Collection, items: list[Item], metadata: Any, line: str):
    with pytest.raises((DataError, MediaError), match=line):
        empty.add(items, metadata)
    assert len(empty) == 0 and not [path for path in (empty.folder / "media").rglob("*.*") if path.name != ".lock"]


def test_a_row_of_a_file_is_not_replaced_by_an_item(tmp_path: Path):
    collection = Collection.create(tmp_path / "c", BagEncoder(), root=tmp_path / "photos")
    collection.table.put(photo_rows(tmp_path / "photos", 2), [])
    with pytest.raises(DataError, match="item row 00: the file album0 has a row of this id"):
        collection.add([Item.of(text="a", id="row 00")])


INDEX_MEANWHILE = """
import sys
from pathlib import Path
from umr import Collection, Item
from unit.mbeir_fixture import BagEncoder

collection = Collection.open(Path(sys.argv[1]), BagEncoder())
for number in range(6):
    collection.add([Item.of(text=f"a grey wall {number}", id=f"wall {number % 4}")])
    if number % 3 == 2:
        collection.delete([f"wall {number % 4}"])
"""


def test_threads_search_while_another_process_indexes(tmp_path: Path):
    collection = Collection.create(tmp_path / "c", BagEncoder(), root=tmp_path / "photos")
    collection.table.put(photo_rows(tmp_path / "photos"), [])
    colours = {"colour": ["red", "green", "blue"]}  # walls have none
    expected = as_said(collection.search("a blue boat", where=colours))

    def ask(number: int) -> bool:
        if number % 2:
            return as_said(collection.search("a blue boat", where=colours)) == expected
        found = collection.search("wall", k=20, mode=("words", "hybrid")[number // 2 % 2])  # type: ignore[arg-type]
        return len(set(found.ids)) == len(found) and all("wall" in hit.text for hit in found if "words" in hit.scores)

    environment = {**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{SRC.parent / 'tests'}"}
    other = subprocess.Popen([sys.executable, "-c", INDEX_MEANWHILE, str(collection.folder)], env=environment)
    try:
        with ThreadPoolExecutor(3) as pool:
            while other.poll() is None:
                assert all(pool.map(ask, range(4)))
                time.sleep(0.2)
    finally:
        other.kill()
        other.wait()
    assert other.returncode == 0
    # of 0 to 3, again and again, 2 went after the third addition and 1 after the last
    assert {hit.id for hit in collection.search("a grey wall", k=50) if not hit.source} == {"wall 0", "wall 3"}


# --- real models


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A few items embedded by a tiny Qwen3-VL. Not to be changed."""
    collection = Collection.create(tmp_path_factory.mktemp("real") / "c", checkpoint("qwen3-vl"))
    items = [Item.of(text="a red circle", id="t1"), Item.of(text="blue ring", id="t2"), Item.of(image=RED, id="i1")]
    collection.add([*items, Item.of(image=BLUE, text="make it blue", id="it1")], {"kept": True})
    return collection


def test_a_real_model_is_found_by_its_path(real: Collection):
    with Collection.open(real.folder) as opened:
        found = opened.search(text="a red circle", image=RED, instruction="Find the thing.", k=4)
        model = Embedder.load(checkpoint("qwen3-vl"))
        query_D = model.encode([Item.of(text="a red circle", image=RED)], "query", "Find the thing.")[0]
        rows = {row.id: row.vector_D for row in opened.table.rows(["t1", "t2", "i1", "it1"], vectors=True)}
        cosines = {id: float(vector_D.astype(np.float32) @ query_D) for id, vector_D in rows.items()}
        in_order(found, cosines)
        with ThreadPoolExecutor(4) as pool:  # one tokenizer for all threads
            many = list(pool.map(lambda _: as_said(opened.search("blue ring", k=4)), range(8)))
        assert many == [many[0]] * 8


def test_a_real_reranker_from_its_path(real: Collection, tmp_path: Path):
    from umr.models.reranker import Reranker

    reranker = Reranker.load(checkpoint("qwen3-vl"))
    found = real.search("a red circle", reranker=checkpoint("qwen3-vl"), rerank_weight=2.0, rerank_depth=3, k=4)
    items = [real.item(hit.id) for hit in found[:3]]
    np.testing.assert_allclose([hit.scores["rerank"] for hit in found[:3]], reranker.score(Item.of(text="a red circle"), items), atol=1e-5)
    assert found.reranked == 3 and found.notes == ()


# --- the command line


def said(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> str:
    assert main(["search", "--collection", *map(str, words)]) == code
    out = capsys.readouterr()
    return out.err if code else out.out


def test_the_command_says_what_python_says(real: Collection, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    RED.save(tmp_path / "red.png")
    words = ["--text", "blue", "--image", tmp_path / "red.png", "--minus", "ring", "--where", "kept=true", "-k", "2", "--json"]
    found = json.loads(said(capsys, real.folder, *words))
    expected = real.search(text="blue", image=tmp_path / "red.png", minus="ring", where="kept=true", k=2).to_json()
    assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in expected["hits"]]
    assert found["hits"][0]["scores"]["cosine"] == pytest.approx(expected["hits"][0]["scores"]["cosine"], abs=1e-6)
    table = said(capsys, real.folder, "--text", "red circle", "--mode", "hybrid", "--modality", "text", "--modality", "image,text")
    assert "order: reciprocal ranks of cosine and BM25" in table and "t1" in table and "i1" not in table
    assert "fused" in table and "words" in table
    assert "it1" in said(capsys, real.folder, "--like", "t1")
    assert said(capsys, real.folder, "--text", "x", "--where", "kept=false") == "nothing found\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "nothing to search for"),
        (["--text", "a", "--image", "no.png"], "no.png"),
        (["--text", "a", "--modality", "smell"], "unknown modality 'smell'"),
        (["--text", "a", "--where", "year"], "is not of the form"),
        (["--text", "a", "--rerank-depth", "5"], "rerank_depth has no effect without a reranker"),
        (["--like", "t1", "--text", "a"], "--text has no effect with --like"),
        (["--text", "a", "--text-weight", "2"], "give both, or leave the weights out"),
        (["--text", "a", "--minus-weight", "2"], "--minus-weight has no effect without --minus"),
        (["--text", "a", "--mode", "words", "--model", "m"], "--model has no effect in mode words"),
    ],
)
def test_mistakes_end_in_one_line(real: Collection, capsys: pytest.CaptureFixture[str], words: list[str], line: str):
    message = said(capsys, real.folder, *words, code=1)
    assert line in message and len(message.splitlines()) == 1 and "unexpected" not in message


def test_a_folder_without_a_collection(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert "no collection here" in said(capsys, tmp_path, "--text", "a", code=1)


def test_marks_become_a_benchmark(real: Collection, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    real.judge("red", "i1", True)
    assert main(["judgements", "--collection", str(real.folder), "--out", str(tmp_path / "bench")]) == 0
    assert "1 queries in collection_task0" in capsys.readouterr().out
    assert main(["check-data", str(tmp_path / "bench")]) == 0


def test_nothing_heavy_is_loaded_for_words(real: Collection):
    script = f"""
import sys
from umr.cli import main
assert main(["search", "--collection", {str(real.folder)!r}, "--text", "ring", "--mode", "words"]) == 0
sys.exit("torch" in sys.modules or "transformers" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "t2" in done.stdout


def test_a_reranker_that_is_loaded(filled: Collection):
    found = filled.search("a blue boat", reranker=BagReranker(), rerank_depth=36, k=3)
    assert found.reranked == 36 and found[0].stage == "rerank"
