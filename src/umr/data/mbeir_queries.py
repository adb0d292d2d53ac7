"""The queries of a benchmark."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias, overload

from umr.data.jsonl import Fault, JsonlIndex, OnError, Problem, Record
from umr.data.mbeir_pool import Pool
from umr.data.mbeir_records import TASKS, MBeirQuery, did_list, missing_media, modality_of, own_first, query_fault, query_item
from umr.errors import DataError
from umr.items import QueryText

Wordings: TypeAlias = Callable[[str, str, str], tuple[str, ...]]


class Queries(Sequence[MBeirQuery]):
    """Queries in file order, read as they are asked for.

    Args:
        paths: the files, read one after the other.
        root: folder that image paths are relative to.
        on_error: as of `MBeir`.
        wordings: gives the instructions for qid, query modality and wanted modality.
        task: the task of lines without a `task_id`.
        pool: for training files, in which a qid may occur repeatedly: the candidates that positives and negatives are in.
        query_text: as of `MBeir`.

    Attributes:
        indexes: the files they come from.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        root: Path,
        on_error: OnError,
        wordings: Wordings,
        task: int | None = None,
        pool: Pool | None = None,
        query_text: QueryText = "separate",
    ) -> None:
        check = query_fault if on_error == "fail" else partial(_usable, root=root, pool=pool)
        self.indexes = tuple(JsonlIndex(path, "qid", on_error, unique=pool is None, check=check) for path in paths)
        self._root, self._wordings, self._task, self._pool = root, wordings, task, pool
        self._query_text: QueryText = query_text
        self._only_within_pool = pool if on_error == "skip" else None
        self._ends = list(accumulate(len(index) for index in self.indexes))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> MBeirQuery: ...

    @overload
    def __getitem__(self, place: slice) -> list[MBeirQuery]: ...

    def __getitem__(self, place: int | slice) -> MBeirQuery | list[MBeirQuery]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"query {place} of {len(self)}")
        place %= len(self)
        which = bisect_right(self._ends, place)
        return self._query(self.indexes[which].at(place - (self._ends[which - 1] if which else 0)))

    def get(self, qid: str) -> MBeirQuery:
        """The query with this qid; in training files, where a qid may occur repeatedly, its first line."""
        for index in self.indexes:
            if qid in index:
                return self._query(index[qid])
        raise DataError(f"{self.indexes[0].path if self.indexes else 'no query file'}: has no query {qid!r}")

    @property
    def ids(self) -> list[str]:
        """All qids in order."""
        return [qid for index in self.indexes for qid in index.ids]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files they come from."""
        return tuple(index.path for index in self.indexes)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Lines left out under `on_error="skip"`."""
        return tuple(problem for index in self.indexes for problem in index.problems)

    def _query(self, record: Record) -> MBeirQuery:
        qid, positives = record["qid"], did_list(record.get("pos_cand_list"))
        negatives = did_list(record.get("neg_cand_list"))
        if self._only_within_pool is not None:
            positives, negatives = _within(positives, self._only_within_pool), _within(negatives, self._only_within_pool)
        task = self._task_of(record, positives)
        modality, target = TASKS[task]
        wordings = self._wordings(qid, modality, target)
        item = query_item(record, self._root, self._query_text if wordings else "separate")
        return MBeirQuery(qid, item, wordings, task, positives, negatives, target)

    def _task_of(self, record: Record, positives: tuple[str, ...]) -> int:
        task = record.get("task_id", self._task)
        if task is not None:
            return int(task)
        did = own_first(record["qid"], positives)
        if self._pool is None or did is None:
            raise DataError(f"query {record['qid']}: has no task_id, and no positive to tell its task by")
        pair = modality_of(record["query_modality"]), self._pool.modality(did)
        found = next((task for task, modalities in TASKS.items() if modalities == pair), None)
        if found is None:
            raise DataError(f"query {record['qid']}: {pair[0]} -> {pair[1]} is none of M-BEIR's tasks")
        return found


def _within(dids: tuple[str, ...], pool: Pool) -> tuple[str, ...]:
    return tuple(did for did, row in zip(dids, pool.find(dids), strict=True) if row >= 0)


def _usable(record: Record, root: Path, pool: Pool | None) -> Fault | None:
    fault = query_fault(record) or missing_media(record, root)
    if fault or pool is None or _within(did_list(record.get("pos_cand_list")), pool):
        return fault
    return "positive outside pool", "none of its positives is in the pool"
