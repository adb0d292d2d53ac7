"""The candidates of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from umr.data.jsonl import Fault, Ids, JsonlIndex, OnError, Problem, Record
from umr.data.mbeir_records import candidate_fault, candidate_item, missing_media, modality_of
from umr.items import Item


class Pool:
    """Candidates in file order, by did. Images are opened when an item is used, not before.

    Attributes:
        path: the file.
        index: its records, for whoever needs more than items.
    """

    def __init__(self, path: Path, root: Path, on_error: OnError) -> None:
        check = candidate_fault if on_error == "fail" else partial(_usable, root=root)
        self.path, self._root = path, root
        self.index = JsonlIndex(path, "did", on_error, check=check)

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, did: object) -> bool:
        return did in self.index

    @property
    def ids(self) -> Ids:
        """All dids in file order, made as they are asked for."""
        return self.index.ids

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Lines left out under `on_error="skip"`."""
        return self.index.problems

    def item(self, did: str) -> Item:
        """The candidate with this did, which is also the item's id. Raises `DataError` when there is none."""
        return candidate_item(self.index[did], self._root)

    def modality(self, did: str) -> str:
        """What the file says the candidate is: `"text"`, `"image"`, `"image,text"` or `"video"`."""
        return str(modality_of(self.index[did]["modality"]))

    def items(self, start: int = 0, stop: int | None = None) -> Iterator[Item]:
        """The candidates of rows `start` to `stop`, by default all, in file order."""
        for row in range(*slice(start, stop).indices(len(self))):
            yield candidate_item(self.index.at(row), self._root)

    def find(self, dids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows of `dids`, shape (N,); -1 where there is none."""
        return self.index.find(dids)


def _usable(record: Record, root: Path) -> Fault | None:
    return candidate_fault(record) or missing_media(record, root)
