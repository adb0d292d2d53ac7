"""The documents and the queries of a text-retrieval set; see `umr.data.text_retrieval` for the files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from umr.data.jsonl import Fault, Ids, JsonlIndex, OnError, Problem, Record
from umr.data.mbeir_records import TEXT_RETRIEVAL, MBeirQuery
from umr.data.qrels import Qrels
from umr.data.text_judgements import TextJudgements
from umr.errors import DataError
from umr.items import Item


class TextPool:
    """The documents of a set, in file order. A document's text is its title, a space and its text, as BEIR's own encoders take it.

    A document without any text, of which FEVER has some, stands as a single space.

    Attributes:
        path: the file.
        index: its records.
    """

    def __init__(self, path: Path, on_error: OnError) -> None:
        self.path = path
        self._key = id_field(path)
        self.index = JsonlIndex(path, self._key, on_error, check=_document_fault)

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, did: object) -> bool:
        return did in self.index

    @property
    def ids(self) -> Ids:
        """All ids in file order, made as they are asked for."""
        return self.index.ids

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Lines left out under `on_error="skip"`."""
        return self.index.problems

    def item(self, did: str) -> Item:
        """The document with this id, which is also the item's. Raises `DataError` when there is none."""
        return self._item(self.index[did])

    def modality(self, did: str) -> str:
        """Always `"text"`."""
        self.index.row(did)
        return "text"

    def items(self, start: int = 0, stop: int | None = None) -> Iterator[Item]:
        """The documents of rows `start` to `stop`, by default all, in file order."""
        for row in range(*slice(start, stop).indices(len(self))):
            yield self._item(self.index.at(row))

    def find(self, dids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows of `dids`, shape (N,); -1 where there is none."""
        return self.index.find(dids)

    def _item(self, record: Record) -> Item:
        text = f"{record.get('title') or ''} {record['text']}".strip()
        return Item.of(text=text or " ", id=record[self._key])


class TextQueries(Sequence[MBeirQuery]):
    """The judged queries of one split, in the order of the file of queries.

    Args:
        records: all queries of the set.
        judged: judgements of the split.
        wordings: instructions to choose from.
        pool: for training, the documents: right answers that it lacks are an error or, under `"skip"`, left out, and so are
            queries without a right answer.
        skip: leave out what cannot be used.

    Raises:
        DataError: a judged query or, in training, a right answer that is in no file, with file and line.
    """

    def __init__(self, records: JsonlIndex, judged: TextJudgements, wordings: tuple[str, ...], pool: TextPool | None, skip: bool) -> None:
        self.records, self.judged, self._wordings = records, judged, wordings
        self._key = id_field(records.path)
        self._left_out: list[Problem] = []
        self._relevant: Qrels = judged.relevant if pool is None else self._within(pool, skip)
        wanted = list(self._relevant)
        rows_Q = records.find(wanted)
        if missing := int((rows_Q < 0).sum()):
            self._complain(wanted[int(np.argmax(rows_Q < 0))], None, f"is not in {records.path}", missing, skip)
        self._rows_Q = np.sort(rows_Q[rows_Q >= 0])

    def __len__(self) -> int:
        return len(self._rows_Q)

    @overload
    def __getitem__(self, place: int) -> MBeirQuery: ...

    @overload
    def __getitem__(self, place: slice) -> list[MBeirQuery]: ...

    def __getitem__(self, place: int | slice) -> MBeirQuery | list[MBeirQuery]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        return self._query(self.records.at(int(self._rows_Q[place])))

    def get(self, qid: str) -> MBeirQuery:
        """The query with this id. Raises `DataError` when the set has none."""
        return self._query(self.records[qid])

    @property
    def ids(self) -> list[str]:
        """All ids in order."""
        return [self.records.id_at(int(row)) for row in self._rows_Q]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that decide what the queries are."""
        return self.records.path, self.judged.path

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Lines left out under `on_error="skip"`."""
        return (*self.records.problems, *self.judged.problems, *self._left_out)

    def _query(self, record: Record) -> MBeirQuery:
        qid = record[self._key]
        positives, negatives = tuple(self._relevant.get(qid, ())), tuple(self.judged.irrelevant.get(qid, ()))
        return MBeirQuery(qid, Item.of(text=record["text"].strip(), id=qid), self._wordings, TEXT_RETRIEVAL, positives, negatives, "text")

    def _within(self, pool: TextPool, skip: bool) -> Qrels:
        pairs = [(qid, did) for qid, dids in self.judged.relevant.items() for did in dids]
        found = pool.find([did for _, did in pairs]) >= 0
        if not found.all():
            qid, did = pairs[int(np.argmin(found))]
            self._complain(qid, did, f"is not in {pool.path}", int((~found).sum()), skip)
        kept: Qrels = {}
        for (qid, did), there in zip(pairs, found, strict=True):
            if there:
                kept.setdefault(qid, {})[did] = self.judged.relevant[qid][did]
        return kept

    def _complain(self, qid: str, did: str | None, what: str, count: int, skip: bool) -> None:
        name = f"query {qid!r}" if did is None else f"document {did!r}"
        more = f", and so are {count - 1} more" if count > 1 else ""
        problem = Problem("unknown id", self.judged.path, self.judged.line_of(qid, did), f"{name} {what}{more}")
        if not skip:
            raise DataError(str(problem))
        self._left_out.append(problem)


def query_index(path: Path, on_error: OnError) -> JsonlIndex:
    """All queries of a set, whatever their split."""
    return JsonlIndex(path, id_field(path), on_error, check=_query_fault)


def id_field(path: Path) -> str:
    """The field that ids are in, by the first line: `"_id"`, or `"id"` where there is no `"_id"`."""
    try:
        with path.open("rb") as file:
            first = json.loads(next((line for line in file if line.strip()), b"{}"))
    except (OSError, ValueError):
        return "_id"  # the index says what is wrong
    return "id" if isinstance(first, dict) and "id" in first and "_id" not in first else "_id"


def _document_fault(record: Record) -> Fault | None:
    if not isinstance(record.get("text"), str):
        return "malformed", f"text must be a string, not {record.get('text')!r}"
    if not isinstance(record.get("title"), str | None):
        return "malformed", f"title must be a string or null, not {type(record['title']).__name__}"
    return None


def _query_fault(record: Record) -> Fault | None:
    if not isinstance(record.get("text"), str) or not record["text"].strip():
        return "malformed", f"text must be a non-empty string, not {record.get('text')!r}"
    return None
