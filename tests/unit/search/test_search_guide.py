"""The commands and the Python of docs/search.md, run in their order on a folder as the guide has it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import PIL.Image
import pytest

from tiny import checkpoint
from umr import Collection
from umr.cli import main

GUIDE = Path(__file__).parents[3] / "docs" / "search.md"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `photos`, `elsewhere` and `model`."""
    for name, colour in (("red", (220, 20, 20)), ("blue", (20, 20, 220)), ("green", (20, 200, 20)), ("grey", (90, 90, 90))):
        (tmp_path / "photos").mkdir(exist_ok=True)
        PIL.Image.new("RGB", (32, 32), colour).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "blue.json").write_text(json.dumps({"caption": "a blue circle", "colour": "blue", "year": 2021}))
    (tmp_path / "photos" / "notes.txt").write_text("A red circle stands beside a blue ring.")
    (tmp_path / "elsewhere").mkdir()
    PIL.Image.new("RGB", (32, 32), (20, 200, 20)).save(tmp_path / "elsewhere" / "door.jpg")
    (tmp_path / "model").symlink_to(checkpoint("qwen3-vl"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_the_guide_says_works(place: Path, capsys: pytest.CaptureFixture[str]):
    blocks = re.findall(r"```(sh|python)\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 8
    names: dict[str, object] = {}
    for language, block in blocks:
        if language == "python":
            exec(block, names)
            if "photos" in names:
                names["photos"] = Collection.open("photos.umr")
            continue
        for line in block.splitlines():
            assert main(shlex.split(line)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
    said = capsys.readouterr().out
    assert "order: reciprocal ranks of cosine and BM25; at most 1 of each source" in said
    assert "the first 4 by cosine + 1 P(Yes), then by cosine" in said
    assert "1 queries in collection_task0" in said and "6 candidates" not in said
