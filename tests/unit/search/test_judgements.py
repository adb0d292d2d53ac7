"""Marks on hits, and the benchmark that is made of them, read by the loaders of evaluation and mining themselves."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from umr.data.benchmark import open_benchmark
from umr.data.mbeir import MBeir
from umr.errors import DataError, MediaError, StoreError
from umr.evaluation import evaluate
from umr.items import Item, Video
from umr.search.benchmark import did_of, export
from umr.search.collection import Collection
from umr.search.judgements import Judgements
from umr.search.rows import Row
from umr.search.settings import CollectionSettings
from unit.mbeir_fixture import DIMENSION, BagEncoder
from unit.search.memory_table import MemoryTable
from unit.search.photo_rows import photo_rows

RED = PIL.Image.new("RGB", (9, 9), (220, 20, 20))


def collection_of(folder: Path, root: Path, rows: list[Row]) -> Collection:
    model = BagEncoder()
    settings = CollectionSettings(model="bag", fingerprint=model.fingerprint, dimension=DIMENSION, root=str(root))
    return Collection(folder, settings, MemoryTable(rows), model)


@pytest.fixture
def photos(tmp_path: Path) -> Collection:
    return collection_of(tmp_path / "photos.umr", tmp_path / "photos", photo_rows(tmp_path / "photos"))


def test_the_last_mark_on_a_query_and_a_row_counts(photos: Collection):
    for id, right in (("row 00", True), ("row 01", False), ("row 00", False), ("row 02", True), ("row 02", None)):
        photos.judge("red thing", id, right)
    photos.judge("red thing", "row 00", True, instruction="Find it")
    kept = Judgements(photos.folder)
    assert kept.of(Item.of(text="red thing"), None) == {"row 00": False, "row 01": False}
    assert kept.of(Item.of(text="red thing"), "Find it") == {"row 00": True}
    assert [(mark.text, mark.id, mark.right) for mark in kept.marks()] == [
        ("red thing", "row 00", False),
        ("red thing", "row 01", False),
        ("red thing", "row 00", True),
    ]
    assert {mark.instruction for mark in kept.marks()} == {None, "Find it"}


def test_a_picture_that_was_asked_with_is_kept(photos: Collection):
    photos.judge(Item.of(image=RED, text="like this"), "row 03", True)
    (mark,) = Judgements(photos.folder).marks()
    assert mark.image.endswith(".png") and mark.text == "like this"
    with PIL.Image.open(photos.folder / "judgements" / mark.image) as image:
        assert image.getpixel((4, 4)) == (220, 20, 20)


def test_a_torn_last_line_is_passed_over_and_cut_off(photos: Collection):
    photos.judge("a", "row 00", True)
    path = photos.folder / "judgements" / "marks.jsonl"
    whole = path.read_bytes()
    for torn in (whole[:-5], b'{"qid": "' + b"x" * 70_000):
        path.write_bytes(whole + torn)
        assert len(Judgements(photos.folder).marks()) == 1
        photos.judge("b", "row 01", True)
        assert path.read_bytes().startswith(whole + b'{"qid"')
        assert [mark.text for mark in Judgements(photos.folder).marks()] == ["a", "b"]
        path.write_bytes(whole)


def _mark_many(folder: Path, name: str) -> None:
    row = Row("row 00", "", "text", "digest", None)
    for number in range(25):
        Judgements(folder).add(Item.of(text=f"{name} {number}"), None, row, True)


def test_several_processes_mark_at_once(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_mark_many, args=(tmp_path, str(number))) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert {mark.text for mark in Judgements(tmp_path).marks()} == {f"{name} {number}" for name in range(3) for number in range(25)}


@pytest.mark.parametrize(
    ("query", "id", "line"),
    [
        (Item.of(video=Video([RED])), "row 00", "video cannot be judged"),
        (Item.of(images=[RED, RED]), "row 00", "2 images cannot be judged"),
        (Item.of(image=Path("no.png")), "row 00", "no.png: image file does not exist"),
        (Item.of(image=b"rubbish"), "row 00", "is not an image"),
        ("red", "row 99", "has no row 'row 99'"),
    ],
)
def test_marks_that_are_refused(photos: Collection, query: Any, id: str, line: str):
    with pytest.raises((DataError, MediaError), match=line):
        photos.judge(query, id, True)
    assert Judgements(photos.folder).marks() == []


def test_a_damaged_line_is_named(photos: Collection):
    photos.judge("a", "row 00", True)
    path = photos.folder / "judgements" / "marks.jsonl"
    path.write_bytes(b"rubbish\n" + path.read_bytes())
    with pytest.raises(StoreError, match=r"marks\.jsonl:1: is no mark"):
        Judgements(photos.folder).marks()


# --- benchmarks


def judged(photos: Collection) -> None:
    """Two text queries (one with right answers of two modalities), an image query, a composed one, and some that are no use."""
    for id, right in (("row 00", True), ("row 03", True), ("row 01", False)):
        photos.judge("a red circle", id, right)  # row 00 is an image, row 03 a text
    photos.judge("blue", "row 02", True)
    photos.judge(Item.of(image=RED), "row 09", True)
    photos.judge(Item.of(image=RED, text="with a boat"), "row 06", True)
    photos.judge("green", "row 04", False)
    photos.judge(Item.of(image=RED), "row 06", True)  # image -> image,text is no task
    photos.judge("blue", "row 05", True, instruction="Find a text")


def test_the_benchmark_has_every_row_and_every_right_answer(photos: Collection, tmp_path: Path):
    judged(photos)
    done = export(photos, tmp_path / "bench")
    assert done.queries == {"collection_task0": 2, "collection_task1": 1, "collection_task4": 1, "collection_task8": 1}
    assert done.candidates == 36
    assert dict(done.left_out) == {
        "queries that were asked with another instruction": 1,
        "queries of which only wrong answers are known": 1,
        "queries image -> image,text, which is none of M-BEIR's tasks": 1,
    }
    tree = open_benchmark(done.folder)
    assert isinstance(tree, MBeir)
    report = tree.check("test")
    assert report.ok, str(report)
    assert tree.instructions is None
    first = next(query for query in tree.queries("collection_task0", "test") if query.item.text == "A red circle.")
    assert first.positives == (did_of("row 00"),) and first.negatives == (did_of("row 01"),)
    assert tree.qrels("collection_task0", "test")[first.qid] == {did_of("row 00"): 1, did_of("row 03"): 1}
    pool = tree.global_pool("test")
    for row in photos.table.rows([f"row {number:02}" for number in range(36)]):
        candidate = pool.item(did_of(row.id))
        assert candidate.modality == row.modality
        if "image" in row.modality:  # the same file, and where there is a text, M-BEIR's reader has cleaned it
            assert candidate.parts[0].digest == photos.item(row.id).parts[0].digest
    assert len(tree.pool("collection_task4", "test")) == 12


def test_umr_evaluates_it(photos: Collection, tmp_path: Path):
    judged(photos)
    done = export(photos, tmp_path / "bench")
    result = evaluate(BagEncoder(), done.folder)
    assert [one.setting for one in result.settings] == list(done.queries)
    found = photos.search(Item.of(image=RED), modalities="image", k=36).ids
    mrr = next(one for one in result.settings if one.setting == "collection_task4").pools["local"].metrics["mrr"]
    assert mrr == pytest.approx(100 / (1 + found.index("row 09")))  # evaluation ranks as the search does


def test_umr_mines_it(photos: Collection, tmp_path: Path):
    from umr.mining.mine import mine_with
    from umr.mining.negatives import NegativeTable
    from umr.mining.settings import MineSettings

    judged(photos)
    done = export(photos, tmp_path / "bench", "train")
    benchmark = open_benchmark(done.folder)
    mined = NegativeTable(mine_with(BagEncoder(), benchmark, tmp_path / "mined", MineSettings(max_similarity=None)))
    queries = benchmark.train_queries()
    assert len(queries) == sum(done.queries.values())
    for query in queries:
        found = mined.of(query.qid)
        assert found and not set(found) & set(query.positives)


def test_the_instruction_comes_along(photos: Collection, tmp_path: Path):
    judged(photos)
    done = export(photos, tmp_path / "bench", instruction="Find a text")
    assert done.queries == {"collection_task1": 1}
    (query,) = open_benchmark(done.folder).queries("collection_task1", "test")
    assert query.instructions == ("Find a text.",)


def test_marks_on_rows_that_have_changed_do_not_count(photos: Collection, tmp_path: Path):
    judged(photos)
    row = photos.table.rows(["row 00"])[0]
    photos.table.add([Row(**{**vars(row), "digest": "another"})])
    photos.delete(["row 02"])
    done = export(photos, tmp_path / "bench")
    assert done.left_out["marks on rows whose content has changed since"] == 1
    assert done.left_out["marks on rows that are gone"] == 1
    assert "collection_task0" not in done.queries


def test_nothing_to_export(photos: Collection, tmp_path: Path):
    with pytest.raises(DataError, match="holds no judgements to make a benchmark of"):
        export(photos, tmp_path / "bench")
    photos.judge("green", "row 04", False)
    with pytest.raises(DataError, match="1 queries of which only wrong answers are known"):
        export(photos, tmp_path / "bench")
    assert not (tmp_path / "bench").exists()


def test_ids_become_dids_without_blanks():
    odd = ["a b", "a%20b", "ä\u2003x", "rep/a.pdf#page=3", "\udcff", "a:b", "tab\tand\nline"]
    dids = [did_of(id) for id in odd]
    assert len(set(dids)) == len(odd)
    assert all(did.startswith("1:") and len(did.split()) == 1 for did in dids)
    assert did_of("rep/a.pdf#page=3") == "1:rep/a.pdf#page=3"


def test_clips_are_written_as_they_were_embedded(tmp_path: Path):
    from umr.search.candidate_files import encoded

    frames = [PIL.Image.new("RGB", (33, 18), (20 * number, 60, 200 - 20 * number)) for number in range(8)]
    video = Video(frames, fps=1.75)
    path = tmp_path / "clip.mp4"
    path.write_bytes(encoded(video))
    again = Video(path).frames()
    assert len(again.images) == 8 and again.fps == pytest.approx(1.75)
    difference = [np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in zip(frames, again.images, strict=True)]
    assert max(difference) <= 8
