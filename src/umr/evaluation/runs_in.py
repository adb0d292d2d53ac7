"""Anybody's run files: TREC's six columns, `qid Q0 did rank score name`, or UniIR's seven, with the task at the end."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.data.benchmark import Pool
from umr.data.jsonl_scan import REPORT_FROM_BYTES
from umr.errors import DataError
from umr.evaluation.result import Run
from umr.progress import progress

Order: TypeAlias = Literal["rank", "score"]
"""What decides: the column of ranks, or that of scores, where of equal scores the greater did comes first, as in trec_eval."""
Owners: TypeAlias = Mapping[str, Sequence[str]]
"""Settings that a query belongs to, by qid."""


_MEGABYTE = 10**6


@dataclass
class Lines:
    """What run files say about one setting, a row for each of their lines.

    Attributes:
        setting: `"<dataset>_task<k>"`.
        qids, dids: every id once, with the number that stands for it below.
        query, document, rank, score, file, line: the columns.
    """

    setting: str
    qids: dict[str, int] = field(default_factory=dict)
    dids: dict[str, int] = field(default_factory=dict)
    query: array[int] = field(default_factory=lambda: array("q"))
    document: array[int] = field(default_factory=lambda: array("q"))
    rank: array[int] = field(default_factory=lambda: array("q"))
    score: array[float] = field(default_factory=lambda: array("d"))
    file: array[int] = field(default_factory=lambda: array("q"))
    line: array[int] = field(default_factory=lambda: array("q"))

    def add(self, qid: str, did: str, rank: int, score: float, place: tuple[int, int]) -> None:
        """Note one line, `place` being its file and its line number."""
        self.query.append(self.qids.setdefault(qid, len(self.qids)))
        self.document.append(self.dids.setdefault(did, len(self.dids)))
        self.rank.append(rank)
        self.score.append(score)
        self.file.append(place[0])
        self.line.append(place[1])


def read_runs(paths: Sequence[Path], owners: Owners, benchmark: str, order: Order | None = None) -> dict[str, Lines]:
    """Read run files of one system; which setting a line belongs to is told by its qid.

    Args:
        paths: the files.
        owners: the queries there are.
        benchmark: what to call it in errors.
        order: ranks are not looked at where scores decide.

    Returns:
        By setting, in the order of their first lines.

    Raises:
        DataError: an unreadable or empty file, or a line that cannot be used, with file and line.
    """
    found: dict[str, Lines] = {}
    for number, path in enumerate(paths):
        before = sum(len(one.line) for one in found.values())
        try:
            for line, text in _numbered(path):
                if cells := text.split():
                    setting, rank, score = _parsed(cells, owners, benchmark, order, f"{path}:{line}")
                    found.setdefault(setting, Lines(setting)).add(cells[0], cells[2], rank, score, (number, line))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not valid UTF-8 ({error.reason})") from error
        if before == sum(len(one.line) for one in found.values()):
            raise DataError(f"{path}: has no lines")
    return found


def to_run(lines: Lines, qids: Sequence[str], pool: Pool, paths: Sequence[Path], order: Order | None = None, itself: bool = False) -> Run:
    """The rankings of a setting's queries; of queries without lines they are empty.

    Args:
        lines: what was read.
        qids: all queries of the setting.
        pool: what was searched.
        paths: the files, for errors.
        order: what decides; `None` where ranks and scores agree.
        itself: leave out a result whose id is the query's.

    Raises:
        DataError: a candidate that is not in the pool or occurs twice, two results of one rank, or scores that rise with the rank.
    """
    query_L, document_L, rank_L = (np.array(one, np.int64) for one in (lines.query, lines.document, lines.rank))
    score_L, dids = np.array(lines.score, np.float64), list(lines.dids)

    def where(place: int) -> str:
        return f"{paths[lines.file[place]]}:{lines.line[place]}"

    unknown = np.flatnonzero(pool.find(dids) < 0)
    if len(unknown):
        place = int(np.flatnonzero(np.isin(document_L, unknown))[0])
        raise DataError(f"{where(place)}: candidate {dids[document_L[place]]!r} is not in {pool.path}; was another pool searched?")
    _check_once(query_L, document_L, where, "has candidate {} twice", dids)
    if order == "score":
        names_D = np.argsort(np.argsort(np.array(dids, dtype=object), kind="stable"), kind="stable")
        places = np.lexsort((-names_D[document_L], -score_L, query_L))
    else:
        _check_once(query_L, rank_L, where, "has rank {} twice")
        places = np.lexsort((rank_L, query_L))
    same = query_L[places][1:] == query_L[places][:-1]
    rising = np.flatnonzero(same & (score_L[places][1:] > score_L[places][:-1]))
    if order is None and len(rising):
        place = int(places[rising[0] + 1])
        raise DataError(f"{where(place)}: has a better score than the rank before it; say whether ranks or scores decide (order)")
    if itself:
        asked = list(lines.qids)
        places = places[[asked[query_L[place]] != dids[document_L[place]] for place in places]]
    return _matrix(lines, qids, query_L[places], document_L[places], score_L[places], dids)


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers; reading a large one reports its progress."""
    size, seen = path.stat().st_size, 0
    with path.open(encoding="utf-8") as file:
        if size < REPORT_FROM_BYTES:
            yield from enumerate(file, 1)
            return
        with progress(f"reading {path.name}", size // _MEGABYTE, "MB") as bar:
            for number, text in enumerate(file, 1):
                seen += len(text)
                if seen > _MEGABYTE:
                    bar.advance(seen // _MEGABYTE)
                    seen %= _MEGABYTE
                yield number, text


def _parsed(cells: list[str], owners: Owners, benchmark: str, order: Order | None, where: str) -> tuple[str, int, float]:
    """Setting, rank and score of a line."""
    if len(cells) not in (6, 7):
        raise DataError(f"{where}: needs 6 columns (qid Q0 did rank score name) or 7 (and the task), has {len(cells)}")
    settings = owners.get(cells[0])
    if settings is None:
        raise DataError(f"{where}: query {cells[0]!r} is none of {benchmark}; is the run of another benchmark or split?")
    if len(cells) == 7:
        of_task = [setting for setting in settings if setting.endswith(f"_task{cells[6]}")]
        if not of_task:
            raise DataError(f"{where}: says task {cells[6]}, but query {cells[0]!r} is of {' and '.join(settings)}")
        settings = of_task
    if len(settings) > 1:
        raise DataError(f"{where}: query {cells[0]!r} is of {' and '.join(settings)}; name one with tasks, or give the task in column 7")
    try:
        rank = 0 if order == "score" else int(cells[3])
    except ValueError:
        raise DataError(f"{where}: rank must be a whole number, not {cells[3]!r}") from None
    try:
        score = float(cells[4])
    except ValueError:
        raise DataError(f"{where}: score must be a number, not {cells[4]!r}") from None
    if not math.isfinite(score):
        raise DataError(f"{where}: score must be a finite number, not {cells[4]!r}")
    return settings[0], rank, score


def _check_once(
    query_L: npt.NDArray[np.int64], other_L: npt.NDArray[np.int64], where: Callable[[int], str], what: str, names: list[str] | None = None
) -> None:
    """Refuse lines of one query that share something."""
    order = np.lexsort((np.arange(len(query_L)), other_L, query_L))
    twice = (query_L[order][1:] == query_L[order][:-1]) & (other_L[order][1:] == other_L[order][:-1])
    if twice.any():
        place = int(order[1:][twice].min())
        value = other_L[place]
        raise DataError(f"{where(place)}: " + what.format(value if names is None else repr(names[value])))


def _matrix(
    lines: Lines,
    qids: Sequence[str],
    query_L: npt.NDArray[np.int64],
    document_L: npt.NDArray[np.int64],
    score_L: npt.NDArray[np.float64],
    dids: list[str],
) -> Run:
    """A `Run` from lines that are sorted by query, best first; its rows count `dids`."""
    counts_A = np.bincount(query_L, minlength=len(lines.qids))
    place_of = {qid: place for place, qid in enumerate(qids)}
    row_A = np.array([place_of[qid] for qid in lines.qids], np.int64)
    column_L = np.arange(len(query_L)) - np.repeat(counts_A.cumsum() - counts_A, counts_A)
    shape = len(qids), max(1, int(counts_A.max(initial=0)))
    rows_QK, scores_QK = np.full(shape, -1, np.int64), np.zeros(shape, np.float32)
    rows_QK[row_A[query_L], column_L] = document_L
    scores_QK[row_A[query_L], column_L] = score_L
    return Run(tuple(qids), rows_QK, scores_QK, pa.chunked_array([pa.array(dids, pa.string())]))
