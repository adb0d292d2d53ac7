"""Items of rows made again from their files: the very items that were embedded, also of pages and clips, and exported as such."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from umr.data.benchmark import open_benchmark
from umr.errors import DataError, MediaError
from umr.search.benchmark import export
from umr.search.collection import Collection
from umr.search.ingest import index_folder
from umr.search.settings import CollectionSettings
from unit.search import small_files as small
from unit.search.memory_table import MemoryTable
from unit.search.seeing_encoder import DIMENSION, SeeingEncoder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A folder with an image, an image with a caption, a text, a PDF of two pages and a video, indexed."""
    root = tmp_path_factory.mktemp("mixed")
    (root / "deep").mkdir()
    (root / "deep" / "a #1.png").write_bytes(small.image(1))
    (root / "b.jpg").write_bytes(small.image(2, "JPEG"))
    (root / "b.txt").write_text("a green boat")
    (root / "c.md").write_text("# Doors\n\nA blue door.")
    (root / "d.pdf").write_bytes(small.pdf("the first page", "the second page"))
    (root / "e.mp4").write_bytes(small.video(3, seconds=3.0))
    model, table = SeeingEncoder(), MemoryTable()
    index_folder(root, table, model)
    settings = CollectionSettings(model="bag", fingerprint=model.fingerprint, dimension=DIMENSION, root=str(root))
    return Collection(root.parent / "mixed.umr", settings, table, model)


def rows_of(collection: Collection) -> list:
    return collection.get([id for batch in collection.table.scan(["id"]) for id in batch.column("id").to_pylist()])


def test_every_row_is_opened_as_it_was_embedded(mixed: Collection):
    rows = rows_of(mixed)
    assert sorted(row.modality for row in rows) == ["image", "image,text", "image,text", "image,text", "text", "video"]
    for row in rows:
        item = mixed.item(row.id)
        assert (item.id, item.modality, item.digest) == (row.id, row.modality, row.digest)


def test_a_file_that_is_gone_or_broken_is_named(mixed: Collection):
    rows = {row.id: row for row in rows_of(mixed)}
    page = next(row for row in rows.values() if row.page == 2)
    clip = next(row for row in rows.values() if row.modality == "video")
    changed = [replace(page, id="no page", page=7), replace(clip, id="no clip", start=50.0, end=60.0)]
    changed += [
        replace(page, id="no pdf", media="b.jpg"),
        replace(page, id="gone", media="x.pdf"),
        replace(page, id="out", media="../x.pdf"),
    ]
    mixed.table.add(changed)
    for row in changed:
        with pytest.raises(MediaError, match=row.id):
            mixed.item(row.id)
    with pytest.raises(DataError, match="has no row"):
        mixed.item("nobody")
    mixed.table.delete([row.id for row in changed])


def test_pages_and_clips_become_files_of_a_benchmark(mixed: Collection, tmp_path: Path):
    rows = rows_of(mixed)
    for row in rows:
        mixed.judge(f"find {row.id}", row.id, True)
    done = export(mixed, tmp_path / "bench")
    assert done.candidates == 6 and not done.left_out
    assert set(done.queries) == {f"collection_task{task}" for task in (0, 1, 2, 9)}
    tree = open_benchmark(done.folder)
    assert tree.check("test").ok
    for row, item in zip(sorted(rows, key=lambda row: row.id), tree.global_pool("test").items(), strict=True):
        if row.page is not None:  # the page's picture, without loss
            assert item.parts[0].open().tobytes() == mixed.item(row.id).parts[0].open().tobytes()
        if row.modality == "video":
            frames, again = mixed.item(row.id).parts[0].frames(), item.parts[0].frames()
            assert len(again.images) == len(frames.images) and again.fps == pytest.approx(frames.fps, rel=1e-3)
