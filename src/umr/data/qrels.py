"""Judgements: which candidates are right for which query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from umr.data.jsonl_scan import OnError, Problem
from umr.errors import DataError

Qrels: TypeAlias = dict[str, dict[str, int]]
"""qid -> did -> relevance, all above zero."""


@dataclass(frozen=True)
class Judgements:
    """What a qrels file holds.

    Attributes:
        relevant: the judgements above zero. A query judged only with zeros is there with none.
        problems: lines left out.
    """

    relevant: Qrels
    problems: tuple[Problem, ...]


def read_qrels(path: Path, on_error: OnError = "fail") -> Judgements:
    """Read `qid 0 did relevance [task_id]`, separated by whitespace; of M-BEIR's five columns the last is not needed.

    Raises:
        DataError: missing file, or a malformed line under `"fail"`, with file and line.
    """
    relevant: Qrels = {}
    problems: list[Problem] = []
    for number, cells in qrels_lines(path):
        if len(cells) not in (4, 5):
            what = f"needs 4 or 5 columns (qid 0 did relevance [task]), has {len(cells)}"
        elif not cells[3].lstrip("-").isdecimal():
            what = f"relevance must be a whole number, not {cells[3]!r}"
        else:
            of_query = relevant.setdefault(cells[0], {})
            if int(cells[3]) > 0:
                of_query[cells[2]] = int(cells[3])
            continue
        problem = Problem("malformed", path, number, what)
        if on_error == "fail":
            raise DataError(str(problem))
        problems.append(problem)
    return Judgements(relevant, tuple(problems))


def qrels_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line number and the columns of every line that is not empty."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if cells := line.split():
                    yield number, cells
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not valid UTF-8 ({error.reason})") from error
