"""A small folder of every kind of file that the page shows, indexed as a collection of a server."""

from __future__ import annotations

import functools
import io
import json
import shutil
from pathlib import Path

import tiny
from umr.search.collection import Collection
from umr.search.ingest import index_folder
from unit.search import small_files

HOSTILE_NAME = "<img src=x onerror=document.title='name'>.txt"
HOSTILE_TEXT = "<script>document.title='text'</script> a red circle & </textarea>"
ROWS = {"image": 4, "text": 2, "image,text": 2, "video": 3}


def picture(kind: str, seed: int, width: int = 320, height: int = 240) -> bytes:
    file = io.BytesIO()
    tiny.picture(width, height, seed).save(file, kind)
    return file.getvalue()


def write_files(root: Path) -> None:
    (root / "photos").mkdir(parents=True)
    for number in range(3):
        (root / f"photos/shot-{number}.jpg").write_bytes(picture("jpeg", number))
        (root / f"photos/shot-{number}.json").write_text(json.dumps({"year": 2019 + number, "place": "harbour"}))
    (root / "photos/scan.tiff").write_bytes(picture("tiff", 7))
    (root / "paper.pdf").write_bytes(small_files.pdf("blue ring center", "two of them moving", sizes=[(200, 300), (200, 300)]))
    (root / "film.mp4").write_bytes(small_files.video(1))
    (root / "long.webm").write_bytes(small_files.video(2, 20.0, ".webm", "libvpx"))  # two clips, in a codec that every browser plays
    (root / "note.txt").write_text("a red circle top left")
    (root / HOSTILE_NAME).write_text(HOSTILE_TEXT)


@functools.cache
def collection() -> Path:
    """The files, indexed with the tiny embedder once a process. Not to be changed: take a copy."""
    root, folder = tiny.workplace() / "shown-files", tiny.workplace() / "shown"
    write_files(root)
    model = tiny.embedder("qwen3-vl")
    with Collection.create(folder, model, root=root, model_name="tiny") as made:
        index_folder(root, made.table, model)
        assert made.stats().modalities == ROWS
    return folder


def copied(home: Path) -> Path:
    """A folder of collections that holds a copy, called `shown`."""
    shutil.copytree(collection(), home / "shown")
    return home
