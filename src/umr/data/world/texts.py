"""The texts of a World, for training a tokenizer."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from umr.data.world.truth import TRAIN_POOL, unlabelled_for
from umr.data.world.writer import CAPTIONS, INSTRUCTIONS, TEXT_PAIRS
from umr.errors import DataError


def iter_texts(root: Path) -> Iterator[str]:
    """Yield every text that training may see: instructions, train queries and candidates, text pairs, captions.

    Texts of val and test are left out: a tokenizer made with them would hold pieces that no training step has touched. Those of
    unlabelled positives are too: they say nothing new, and without them a model trained on the lists alone is the same
    whether or not there are any.

    Args:
        root: folder that `generate` has finished.

    Raises:
        DataError: `root` is not a World.
    """
    if not (root / "world.json").is_file():
        raise DataError(f"{root}: not a World (no world.json); make one with `umr world {root}`")
    with (root / INSTRUCTIONS).open(encoding="utf-8") as file:
        for line in list(file)[1:]:
            yield from line.rstrip("\n").split("\t")[4:]
    for path in sorted((root / "query/train").glob("*.jsonl")):
        yield from _field(path, "query_txt")
    yield from _field(root / TRAIN_POOL, "txt")
    with (root / TEXT_PAIRS).open(encoding="utf-8", newline="") as file:
        for row in list(csv.reader(file))[1:]:
            yield from row
    yield from _field(root / CAPTIONS, "text")


def _field(path: Path, key: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if record[key] and not unlabelled_for(record):
                yield record[key]
