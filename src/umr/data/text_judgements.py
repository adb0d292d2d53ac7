"""Judgements of text-retrieval sets: BEIR's tables with a header, MTEB's JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from umr.data.jsonl_scan import OnError, Problem
from umr.data.qrels import Qrels
from umr.errors import DataError

COLUMNS = ("query-id", "corpus-id", "score")


@dataclass(frozen=True)
class TextJudgements:
    """What a file of judgements holds.

    Attributes:
        path: the file.
        relevant: judgements above zero. A query judged only otherwise is there with none.
        irrelevant: documents judged zero or less, by query.
        problems: lines left out.
    """

    path: Path
    relevant: Qrels = field(default_factory=dict)
    irrelevant: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, qid: str, did: str | None = None) -> int:
        """The line that judges a query, or this document for it: for messages, reads the file anew."""
        return next(number for number, row in judged_lines(self.path) if isinstance(row, tuple) and row[0] == qid and did in (None, row[1]))


def read_judgements(path: Path, on_error: OnError = "fail") -> TextJudgements:
    """Read the judgements of one split.

    Args:
        path: `.tsv` with the columns query id, document id and grade, separated by tabs, after a header line, as BEIR has it; or
            `.jsonl` with the fields `query-id`, `corpus-id` and `score`, as MTEB has it. Grades are whole numbers; `1.0` is one.
        on_error: `"fail"` raises at the first malformed line, `"skip"` lists such lines in `problems`.

    Raises:
        DataError: missing file, no judgement in it, or a malformed line under `"fail"`, with file and line.
    """
    judged = TextJudgements(path)
    for number, row in judged_lines(path):
        if isinstance(row, str):
            problem = Problem("malformed", path, number, row)
            if on_error == "fail":
                raise DataError(str(problem))
            judged.problems.append(problem)
            continue
        qid, did, grade = row
        of_query = judged.relevant.setdefault(qid, {})
        if grade > 0:
            of_query[did] = grade
        else:
            judged.irrelevant.setdefault(qid, []).append(did)
    if not judged.relevant:
        raise DataError(f"{path}: holds no judgements")
    return judged


def judged_lines(path: Path) -> Iterator[tuple[int, tuple[str, str, int] | str]]:
    """Line number with query, document and grade, or with what is wrong, for every line that is not empty."""
    read = _of_json if path.suffix == ".jsonl" else _of_table
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not (number == 1 and path.suffix == ".tsv" and _is_header(line)):
                    yield number, read(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not valid UTF-8 ({error.reason})") from error


def _is_header(line: str) -> bool:
    """Whether a first line holds names. A table without a header loses nothing."""
    return _grade(line.rstrip("\r\n").split("\t")[-1]) is None


def _of_table(line: str) -> tuple[str, str, int] | str:
    cells = line.rstrip("\r\n").split("\t")
    if len(cells) != len(COLUMNS):
        return f"needs 3 columns separated by tabs ({', '.join(COLUMNS)}), has {len(cells)}"
    return _row(*cells)


def _of_json(line: str) -> tuple[str, str, int] | str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"is not valid JSON ({error})"
    if not isinstance(record, dict) or any(name not in record for name in COLUMNS):
        return f"must be an object with {', '.join(COLUMNS)}"
    return _row(*(record[name] for name in COLUMNS))


def _row(qid: object, did: object, score: object) -> tuple[str, str, int] | str:
    if not (isinstance(qid, str) and qid and isinstance(did, str) and did):
        return f"ids must be non-empty strings, not {qid!r} and {did!r}"
    grade = _grade(score)
    return (qid, did, grade) if grade is not None else f"the grade must be a whole number, not {score!r}"


def _grade(score: object) -> int | None:
    try:
        value = float(score)  # type: ignore[arg-type]
        return int(value) if value == int(value) else None
    except (ValueError, TypeError, OverflowError):
        return None
