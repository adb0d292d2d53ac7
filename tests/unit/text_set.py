"""A small text-retrieval set, in BEIR's or MTEB's layout, for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COLOURS = ("red", "green", "blue")
THINGS = ("circle", "square", "star", "moon", "tree", "house", "boat", "fish")


def write_set(root: Path, mteb: bool = False, queries: int = 12) -> Path:
    """Twenty-four documents; query n asks for thing n mod 8 in colour n mod 3.

    Its right answer, grade 2, is document n. Documents of the same thing in other colours have grade 1 where n is even and are judged 0
    where it is odd. Queries up to the fourth last are for training, the others for testing, the last of them being dev's as well.
    """
    documents = [{"_id": f"doc {n}", "title": f"About {_thing(n)}", "text": f"a {_colour(n)} {_thing(n)} n{n}"} for n in range(24)]
    asked = [{"_id": f"q/{n}", "text": f"{_colour(n)} {_thing(n)} n{n}"} for n in range(queries)]
    _write(root / "corpus.jsonl", map(json.dumps, documents))
    _write(root / "queries.jsonl", map(json.dumps, asked))
    for split, numbers in (("train", range(queries - 4)), ("test", range(queries - 4, queries)), ("dev", range(queries - 1, queries))):
        judged = [row for n in numbers for row in _judged(n)]
        if mteb:
            names = ("query-id", "corpus-id", "score")
            _write(root / "qrels" / f"{split}.jsonl", (json.dumps(dict(zip(names, (q, d, float(s)), strict=True))) for q, d, s in judged))
        else:
            _write(root / "qrels" / f"{split}.tsv", ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in judged)])
    return root


def add_line(path: Path, line: str | dict[str, Any]) -> None:
    """Append to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")


def _judged(n: int) -> list[tuple[str, str, int]]:
    near = [m for m in range(24) if m % 8 == n % 8 and m != n]
    return [(f"q/{n}", f"doc {n}", 2), *((f"q/{n}", f"doc {m}", 1 - n % 2) for m in near)]


def _colour(n: int) -> str:
    return COLOURS[n % 3]


def _thing(n: int) -> str:
    return THINGS[n % 8]


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
