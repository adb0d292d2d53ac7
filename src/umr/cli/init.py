"""`umr init`: make a small checkpoint from nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

TEXT_FIELDS = ("txt", "query_txt", "text")
"""The fields of a JSON line that are taken as text: M-BEIR's candidates and queries, and plain `text`."""

SAMPLE = """\
A model that finds anything with anything reads text, looks at images and watches video.
The red circle is above the small blue square, and a green triangle lies to the left of it.
Find an image that shows what this sentence describes. Which caption belongs to this picture?
Make the large yellow star purple, move it to the bottom right corner, and remove the white ring.
Two black crosses, three striped hexagons, and one dotted heart stand in the upper half of the scene.
Retrieve a passage that answers the question. Identify the same scene seen from another side.
Zero one two three four five six seven eight nine ten; what, where, when, who, how, and why?
"""
"""What the tokenizer is trained on when no text is given: enough to try things out."""


def init(
    family: Annotated[Literal["qwen2-vl", "qwen2.5-vl", "qwen3-vl"], typer.Argument(help="Backbone family.")],
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    size: Annotated[Literal["tiny", "small", "base"], typer.Option(help="About 1, 10 or 100 million parameters.")] = "tiny",
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text to train the tokenizer on: .txt, .jsonl, or a benchmark folder. May be repeated. Default: a few sentences."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Make a checkpoint from nothing: config, tokenizer, processor and random weights, as transformers loads them."""
    from umr.cli import console
    from umr.models.tiny import make_checkpoint

    console.hush_transformers()
    lines = [line for path in texts for line in read_texts(path)] if texts else SAMPLE.splitlines()
    parameters = make_checkpoint(family, out, lines, size=size, seed=seed)
    console.say(f"{out}: a {family} with {parameters:,} random parameters, its tokenizer trained on {len(lines):,} texts")


def read_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a `.txt` file (one a line), of a `.jsonl` file, or of the training part of a benchmark folder.

    Raises:
        DataError: the path does not exist, is of another kind, holds no text, or a line is not a JSON object.
    """
    from umr.data.world import iter_texts
    from umr.errors import DataError

    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    texts = iter_texts(path) if (path / "world.json").is_file() else (text for file in _text_files(path) for text in _file_texts(file))
    found = False
    for text in filter(None, map(str.strip, texts)):
        found = True
        yield text
    if not found:
        raise DataError(f"{path}: holds no text; give a .txt file, a .jsonl file with {', '.join(TEXT_FIELDS)}, or a benchmark folder")


def _text_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    patterns = ("instructions/query_instructions.tsv", "query/*train/*.jsonl", "cand_pool/global/*train*.jsonl")
    return sorted(file for pattern in patterns for file in path.glob(pattern))


def _file_texts(file: Path) -> Iterator[str]:
    from umr.errors import DataError

    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        if file.suffix == ".txt":
            yield from lines
        elif file.suffix == ".tsv":
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                yield from (text for name, text in row.items() if name and name.startswith("prompt") and text)
        elif file.suffix == ".jsonl":
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from _json_texts(line, f"{file}:{number}")
        else:
            raise DataError(f"{file}: text is read from .txt and .jsonl files")


def _json_texts(line: str, where: str) -> Iterator[str]:
    from umr.errors import DataError

    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object is expected, not {type(record).__name__}")
    yield from (record[name] for name in TEXT_FIELDS if isinstance(record.get(name), str))
