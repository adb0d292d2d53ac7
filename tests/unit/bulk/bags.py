"""A corpus of small texts, models that workers can load, and ways to kill the workers that do."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umr.items import Item, Side
from umr.protocols import Encoder, Vectors
from unit.mbeir_fixture import BagEncoder

COUNT = 50


def write_manifest(folder: Path, count: int = COUNT) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"thing {n}", "text": f"a sentence on thing {n} and thing {n % 7}"}) + "\n" for n in range(count))
    )
    return path


def contents(store: Path) -> dict[str, bytes]:
    """Every file below a store by name, but its lock."""
    return {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file() and file.name != "lock"}


@dataclass(frozen=True)
class Bag:
    """Loads a `BagEncoder`."""

    name: str = "bag"

    def __call__(self, device: str | None = None) -> Encoder:
        return BagEncoder(self.name)


@dataclass(frozen=True)
class Unlike:
    """Loads another model in workers than in the coordinator, as a machine with an old copy of it does."""

    def __call__(self, device: str | None = None) -> Encoder:
        return BagEncoder("old" if device is None else "new")


@dataclass(frozen=True)
class Deadly:
    """Loads a `BagEncoder` whose process is killed at an item, as often as there are marks left in a folder.

    Attributes:
        marks: the folder; every kill takes a mark away.
        item: id of the item.
        parent: kill the process that started this one instead.
    """

    marks: Path
    item: str
    parent: bool = False

    def __call__(self, device: str | None = None) -> Encoder:
        return _DeadlyEncoder(self, device)


class _DeadlyEncoder(BagEncoder):
    def __init__(self, how: Deadly, device: str | None) -> None:
        super().__init__()
        self._how = how
        if device is None:  # a worker's, not the coordinator's
            (how.marks.parent / "pids" / str(os.getpid())).touch()

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        left = sorted(self._how.marks.iterdir())
        if left and self._how.item in {item.id for item in items}:
            left[0].unlink()
            os.kill(os.getppid() if self._how.parent else os.getpid(), signal.SIGKILL)
        return super().encode(items, side, instruction)


def marks(folder: Path, count: int) -> Path:
    """`count` marks in a new folder, beside which workers leave their process ids in `pids`."""
    folder.mkdir()
    (folder.parent / "pids").mkdir()
    for number in range(count):
        (folder / str(number)).touch()
    return folder
