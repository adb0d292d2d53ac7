"""`umr index`: collections are made, opened again, kept up to date, and never mixed."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tiny import checkpoint
from umr.cli import main
from umr.errors import RecipeError, StoreError
from umr.progress import quiet
from umr.search.indexing import LOCK, Indexing, _alone
from umr.search.report import Report
from umr.search.settings import CollectionSettings
from umr.search.watching import watch
from unit.search import small_files as small
from unit.search.seeing_encoder import SeeingEncoder


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    (root / "a.png").write_bytes(small.image(1))
    (root / "b.txt").write_text("some words")
    (root / "c.bin").write_bytes(bytes(range(200)))
    return root


def begin(root: Path | None, collection: Path, encoder: Any = None, **options: Any) -> Indexing:
    return Indexing.begin(root, collection, encoder or SeeingEncoder(), **options)


def test_a_collection_is_made_and_opened_again(root: Path) -> None:
    collection = root / "inside"  # its own files are not the folder's
    counts = begin(root, collection, instruction="Find it.").run()
    assert (counts.files, counts.indexed, counts.rejected) == (3, 2, 1)
    settings = CollectionSettings.read(collection)
    assert (settings.root, settings.fingerprint, settings.instruction) == (str(root), "seeing", "Find it.")
    again = begin(None, collection)
    assert again.run().unchanged == 3
    assert [file.path for file in again.report().rejected] == ["c.bin"]


def test_an_interrupted_beginning_can_be_repeated(root: Path, tmp_path: Path) -> None:
    begin(root, tmp_path / "c")
    (tmp_path / "c" / "collection.json").unlink()
    assert begin(root, tmp_path / "c").run().files == 3


def test_nothing_is_mixed(root: Path, tmp_path: Path) -> None:
    collection = tmp_path / "c"
    with pytest.raises(RecipeError, match="give a folder to index and a model"):
        Indexing.begin(root, collection)
    begin(root, collection).run()
    other = SeeingEncoder()
    other.fingerprint = "another"
    with pytest.raises(StoreError, match="fingerprint another"):
        begin(root, collection, other)
    with pytest.raises(StoreError, match=r"is the collection of .*files, not of"):
        begin(tmp_path, collection)
    with pytest.raises(StoreError, match=r"not of .*items\.jsonl"):
        begin(root / "items.jsonl", collection)
    with pytest.raises(RecipeError, match="its instruction is None"):
        begin(root, collection, instruction="Find it.")
    with _alone(collection), pytest.raises(StoreError, match="another process is indexing"):
        begin(root, collection).run()
    assert (collection / LOCK).exists()


def test_ways_of_reading_are_kept_and_may_change(root: Path, tmp_path: Path) -> None:
    collection = tmp_path / "c"
    (root / "b.txt").write_text("\n\n".join(["some words " * 12] * 3))  # 131 characters a paragraph
    (root / ".h.txt").write_text("hidden words")
    made = begin(root, collection, chunk=150, hidden=True)
    assert made.told == {} and made.run().rows == 1 + 3 + 1
    kept = begin(None, collection)
    assert kept.run().unchanged == 4 and kept.hidden
    assert begin(None, collection, chunk=150, hidden=True).told == {}

    other = begin(None, collection, chunk=300, hidden=False)
    assert other.told == {"chunk": 300, "hidden": False} and not other.hidden
    assert CollectionSettings.read(collection).chunk == 150  # nothing has been read in this way yet
    counts = other.run()
    assert (counts.rows, counts.rejected) == (1 + 2, 2)  # two paragraphs are a chunk of 264 characters
    assert CollectionSettings.read(collection).chunk == 300
    assert kept.run().unchanged == 4  # it was begun before, and goes by what is kept now
    with pytest.raises(RecipeError, match="chunk=0"):
        begin(None, collection, chunk=0)


def test_a_change_of_reading_that_is_broken_off_is_finished_by_the_next_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = tmp_path / "c"
    (root / "a.txt").write_text("a caption")
    begin(root, collection).run()
    broken = begin(None, collection, captions=False)
    with monkeypatch.context() as patch:
        patch.setattr(broken.table, "put", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            broken.run()
    again = begin(None, collection)
    again.run()
    assert [file.path for file in again.report().indexed if file.rows] == ["a.png", "a.txt", "b.txt"]


def test_what_all_vectors_depend_on_stays(root: Path, tmp_path: Path) -> None:
    collection = tmp_path / "c"
    begin(root, collection).run()
    with pytest.raises(RecipeError, match="was made with texts=plain, and texts=mbeir gives other vectors"):
        begin(None, collection, texts="mbeir")
    with pytest.raises(RecipeError, match="dtype has no effect on a model that is loaded"):
        begin(None, collection, dtype="float32")
    for setting in ({"dtype": "bfloat16"}, {"max_pixels": 4096}):
        with pytest.raises(RecipeError, match="gives other vectors"):
            Indexing.begin(None, collection, **setting)


def test_a_collection_that_was_made_without_a_folder_gets_one(root: Path, tmp_path: Path) -> None:
    from umr.search.collection import Collection

    with Collection.create(tmp_path / "c", SeeingEncoder()):
        pass
    with pytest.raises(RecipeError, match="was not made from a folder"):
        begin(None, tmp_path / "c")
    assert begin(root, tmp_path / "c").run().files == 3
    assert begin(None, tmp_path / "c").source == root


def test_a_manifest_is_a_source_too(root: Path, tmp_path: Path) -> None:
    (root / "items.jsonl").write_text('{"id": "x", "image": "a.png"}\n{"id": "y"}\n')
    job = begin(root / "items.jsonl", tmp_path / "c")
    counts = job.run()
    assert (counts.indexed, counts.rejected) == (1, 1)
    assert job.report().rejected[0].path == "items.jsonl:2"
    assert begin(None, tmp_path / "c").source == root / "items.jsonl"


def test_the_report_names_every_file(root: Path, tmp_path: Path) -> None:
    (root / "d.pdf").write_bytes(small.pdf("a", "b", sizes=[(200, 100), (1e7, 1)]))
    job = begin(root, tmp_path / "c")
    job.run()
    job.report().write(tmp_path / "report.json")
    told = json.loads((tmp_path / "report.json").read_text())
    assert (told["files"], told["indexed"], told["rejected"], told["rows"]) == (4, 3, 1, 3)
    assert [file["path"] for file in told["rejected_files"]] == ["c.bin"]
    assert {file["path"]: "left_out" in file for file in told["indexed_files"]} == {"a.png": False, "b.txt": False, "d.pdf": True}
    assert sum(told["reasons"].values()) == 1
    assert Report.of([]).reasons() == []


def test_a_photo_of_forty_million_pixels(tmp_path: Path) -> None:
    from umr.search.collection import Collection

    (tmp_path / "files").mkdir()
    photo = PIL.Image.new("RGB", (8000, 5000), (200, 40, 40))
    photo.paste((40, 40, 200), (0, 0, 4000, 5000))
    photo.save(tmp_path / "files" / "a.jpg")
    encoder = SeeingEncoder()
    counts = begin(tmp_path / "files", tmp_path / "c", encoder).run()
    assert (counts.indexed, counts.rejected) == (1, 0)
    with Collection.open(tmp_path / "c", encoder) as found:
        assert found.item("a.jpg").parts[0].open().size == (4000, 2500)
        (hit,) = found.search(image=tmp_path / "files" / "a.jpg")
        assert hit.scores["cosine"] == pytest.approx(1, abs=1e-3)  # what is stored has half precision
        (row,) = found.get(["a.jpg"])
    assert PIL.Image.open(io.BytesIO(row.thumbnail)).size == (256, 160)


def test_watching_sees_what_comes_changes_and_goes(root: Path, tmp_path: Path) -> None:
    job = begin(root, root / "inside")
    stop, ran = threading.Event(), threading.Semaphore(0)
    seen: list[set[str]] = []

    def again() -> None:
        job.run()
        seen.append({file.path for file in job.report().indexed})
        ran.release()

    thread = threading.Thread(target=watch, args=(root, job.collection, again), kwargs={"stop": stop})
    thread.start()
    try:
        assert ran.acquire(timeout=60)
        (root / "new.txt").write_text("new words")
        assert ran.acquire(timeout=60)
        (root / "b.txt").unlink()
        assert ran.acquire(timeout=60)
        assert not ran.acquire(timeout=1.5)  # what indexing writes itself does not count
    finally:
        stop.set()
        thread.join(60)
    assert seen == [{"a.png", "b.txt"}, {"a.png", "b.txt", "new.txt"}, {"a.png", "new.txt"}]


def test_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collection, tiny_model = tmp_path / "c", checkpoint("qwen3-vl")
    made = ["--model", str(tiny_model), "--dtype", "bfloat16", "--max-pixels", "4096", "--chunk", "200"]
    assert main(["index", str(root), "--collection", str(collection), *made]) == 0
    said = capsys.readouterr().out
    assert "3 files = 2 indexed + 1 rejected; 2 rows" in said
    assert "is binary data" in said
    assert main(["index", "--collection", str(collection), "--report", "--chunk", "300"]) == 0
    said = capsys.readouterr().out
    assert "from now on chunk 300 instead of 200" in said and "0 embedded" in said
    assert main(["index", "--collection", str(collection), "--report"]) == 0
    said = capsys.readouterr().out
    assert "from now on" not in said and "3 files unchanged" in said
    assert "c.bin" in said
    assert json.loads((collection / "report.json").read_text())["rejected"] == 1
    assert main(["index", str(tmp_path / "nowhere"), "--collection", str(tmp_path / "d"), "--model", str(tiny_model)]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
    (root / "[").mkdir()  # rich would take such names for its markup
    (root / "[" / "b].bin").write_bytes(b"")
    assert main(["index", "--collection", str(collection), "--report"]) == 0
    assert "[/b].bin" in capsys.readouterr().out
    (root / "items.jsonl").write_text('{"id": "x", "text": "words"}\n')
    words = ["index", str(root / "items.jsonl"), "--collection", str(tmp_path / "e"), "--model", str(tiny_model), "--no-captions"]
    assert main(words) == 1
    assert "for a manifest it has no effect" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_everybody_loads_the_model_as_the_collection_was_made(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from umr.models.embedder import Embedder
    from umr.search.collection import Collection
    from umr.serving.loading import _bring

    made = Indexing.begin(root, tmp_path / "c", checkpoint("qwen3-vl"), dtype="bfloat16", max_pixels=4096)
    made.run()
    assert CollectionSettings.read(tmp_path / "c").loading == {"revision": None, "dtype": "bfloat16", "max_pixels": 4096}
    assert Indexing.begin(None, tmp_path / "c").encoder.fingerprint == made.encoder.fingerprint
    with Collection.open(tmp_path / "c") as opened:
        assert len(opened.search("words")) == 2
    brought: dict[str, Embedder] = {}
    _bring(tmp_path / "c", brought, {}, {"dtype": "float32"})
    (model,) = brought.values()
    assert model.fingerprint == made.encoder.fingerprint
    with Collection.create(tmp_path / "d", model):
        assert CollectionSettings.read(tmp_path / "d").dtype == "bfloat16"
    assert main(["index", "--collection", str(tmp_path / "c"), "--dtype", "float16"]) == 1
    assert "was made with dtype=bfloat16" in capsys.readouterr().err
