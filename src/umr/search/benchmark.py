"""A collection and its judgements as a benchmark in the M-BEIR layout, which `umr eval`, `umr mine` and `umr train` read.

Every row is a candidate of the global pool; the local pool of a setting has the rows of the modality that it looks for. A query whose
right answers are of several modalities is in the setting of each, and always judged with all of its right answers.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from umr import files
from umr.data.mbeir_records import TASKS, TEXT_RETRIEVAL, normalise_text
from umr.errors import DataError
from umr.search.candidate_files import CandidateFiles
from umr.search.judgements import Judgements, Mark
from umr.search.rows import Row

if TYPE_CHECKING:
    from umr.search.collection import Collection

DATASET = 1
"""Number of the dataset: the part of every qid and did before the colon."""
_TASKS = {modalities: task for task, modalities in TASKS.items() if task != TEXT_RETRIEVAL}
_COLUMNS = ("id", "source", "modality", "digest", "text", "media", "page", "start", "end")


@dataclass(frozen=True)
class Exported:
    """What a benchmark was made of.

    Attributes:
        folder: where it is.
        queries: by setting.
        candidates: in the global pool.
        left_out: how many marks, queries and rows are not in it, by reason.
    """

    folder: Path
    queries: Mapping[str, int]
    candidates: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{count} queries in {name}" for name, count in self.queries.items()] or ["no queries"]
        lines += [f"{self.candidates} candidates"]
        lines += [f"left out: {count} {reason}" for reason, count in self.left_out.items()]
        return "\n".join(lines)


def export(
    collection: Collection,
    folder: Path,
    split: Literal["train", "val", "test"] = "test",
    instruction: str | None = None,
    name: str = "collection",
) -> Exported:
    """Write a benchmark. Media are hard links where the file system has them, else copies; pages and clips are drawn anew.

    Args:
        collection: with judgements.
        folder: where; files that are there are replaced, so that several splits can share it.
        split: which one the judgements become: `"test"` or `"val"` to measure, `"train"` to mine and train. The same marks as both would
            measure what was learned by heart.
        instruction: queries that were asked with this one, `""` for none. Default: the one that most were asked with.
        name: of the dataset.

    Raises:
        DataError: there are no judgements with a right answer, or a row's file is gone.
    """
    judgements, left_out = Judgements(collection.folder), Counter[str]()
    marks = _of_one_instruction(judgements.marks(), instruction, left_out)
    if not marks:
        raise DataError(f"{judgements.path}: holds no judgements to make a benchmark of; mark hits as right first")
    asked = marks[0].instruction
    rows = _rows(collection)
    by_query: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        if (row := rows.get(mark.id)) is None:
            left_out["marks on rows that are gone"] += 1
        elif row.digest != mark.digest:
            left_out["marks on rows whose content has changed since"] += 1
        else:
            by_query[mark.qid].append(mark)
    settings = _settings(by_query, left_out)
    if not settings:
        raise DataError(f"{judgements.path}: holds no query with a right answer that a benchmark can be made of ({_first(left_out)})")
    out = _Tree(folder, split, name, CandidateFiles(folder, collection.media))
    pool = out.candidates(rows.values(), left_out)
    for task, queries in sorted(settings.items()):
        out.setting(task, queries, judgements.folder, pool)
    out.instructions(sorted(settings), asked)
    return Exported(folder, {f"{name}_task{task}": len(queries) for task, queries in sorted(settings.items())}, len(pool), dict(left_out))


def did_of(id: str) -> str:
    """The did of a row: readable, without blanks, and different for different ids."""
    return f"{DATASET}:{quote(id.encode('utf-8', 'surrogatepass'), safe='/#=.,+-_~()!')}"


def _of_one_instruction(marks: Sequence[Mark], asked: str | None, left_out: Counter[str]) -> list[Mark]:
    if asked is None:
        counts = Counter(mark.instruction or "" for mark in {mark.qid: mark for mark in marks}.values())
        asked = max(sorted(counts), key=lambda one: counts[one]) if counts else ""
    chosen = [mark for mark in marks if (mark.instruction or "") == asked]
    if others := len({mark.qid for mark in marks}) - len({mark.qid for mark in chosen}):
        left_out["queries that were asked with another instruction"] += others
    return chosen


def _rows(collection: Collection) -> dict[str, Row]:
    """All rows by id, in the order of ids, without vectors and thumbnails."""
    found = [
        Row(**{**record, "text": record["text"] or "", "media": record["media"] or ""}, vector_D=None)
        for batch in collection.table.scan(_COLUMNS)
        for record in batch.to_pylist()
    ]
    return {row.id: row for row in sorted(found, key=lambda row: row.id)}


@dataclass(frozen=True)
class _Query:
    marks: Sequence[Mark]
    target: str

    def right(self, modality: str | None = None) -> list[str]:
        return [did_of(mark.id) for mark in self.marks if mark.right and modality in (None, mark.modality)]

    @property
    def wrong(self) -> list[str]:
        return [did_of(mark.id) for mark in self.marks if not mark.right]


def _settings(by_query: Mapping[str, Sequence[Mark]], left_out: Counter[str]) -> dict[int, list[_Query]]:
    """Queries by task."""
    found: dict[int, list[_Query]] = defaultdict(list)
    for marks in by_query.values():
        targets = dict.fromkeys(mark.modality for mark in marks if mark.right)
        if not targets:
            left_out["queries of which only wrong answers are known"] += 1
        for target in targets:
            task = _TASKS.get((_modality(marks[0]), target))
            if task is None:
                left_out[f"queries {_modality(marks[0])} -> {target}, which is none of M-BEIR's tasks"] += 1
            else:
                found[task].append(_Query(marks, target))
    return found


def _modality(query: Mark) -> str:
    return ",".join(kind for kind, there in (("image", query.image), ("text", query.text)) if there)


def _first(left_out: Counter[str]) -> str:
    return next((f"{count} {reason}" for reason, count in left_out.items()), "no marks")


class _Tree:
    """The files of one split."""

    def __init__(self, root: Path, split: str, name: str, media: CandidateFiles) -> None:
        self._root, self._split, self._name, self._media = root, split, name, media

    def candidates(self, rows: Iterable[Row], left_out: Counter[str]) -> list[dict[str, Any]]:
        """Write the global pool; its records."""
        pool = []
        rows = list(rows)
        for row in rows:
            if row.modality not in {target for _, target in _TASKS}:
                left_out[f"rows of {row.modality}, which M-BEIR has not"] += 1
            elif row.modality == "text" and not normalise_text(row.text):
                left_out["rows of nothing but blanks and quotes"] += 1
            else:
                pool.append(row)
        paths = self._media.write(pool)
        records = [_candidate(row, paths.get(row.id)) for row in pool]
        _write(self._root / "cand_pool" / "global" / f"mbeir_union_{self._split}_cand_pool.jsonl", map(_line, records))
        return records

    def setting(self, task: int, queries: Sequence[_Query], media: Path, pool: Sequence[Mapping[str, Any]]) -> None:
        """Write queries, judgements and the local pool of a task."""
        name = f"mbeir_{self._name}_task{task}"
        records = [self._query(query, task, media) for query in queries]
        _write(self._root / "query" / self._split / f"{name}_{self._split}.jsonl", map(_line, records))
        judged = [f"{DATASET}:{query.marks[0].qid} 0 {did} 1 {task}" for query in queries for did in query.right()]
        _write(self._root / "qrels" / self._split / f"{name}_{self._split}_qrels.txt", judged)
        local = (_line(record) for record in pool if record["modality"] == TASKS[task][1])
        _write(self._root / "cand_pool" / "local" / f"{name}_cand_pool.jsonl", local)

    def _query(self, query: _Query, task: int, media: Path) -> dict[str, Any]:
        first = query.marks[0]
        image = self._media.link(media / first.image, f"query-{Path(first.image).name}") if first.image else None
        return {
            "qid": f"{DATASET}:{first.qid}",
            "query_txt": first.text or None,
            "query_img_path": image,
            "query_modality": TASKS[task][0],
            "pos_cand_list": query.right(query.target),
            "neg_cand_list": query.wrong,
            "task_id": task,
        }

    def instructions(self, tasks: Iterable[int], asked: str | None) -> None:
        """Write the instruction for every kind of query; without one there is no file, and queries carry none."""
        path = self._root / "instructions" / "query_instructions.tsv"
        if not asked:
            path.unlink(missing_ok=True)
            return
        said = " ".join(asked.split())
        lines = ["query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1"]
        _write(path, [*lines, *(f"{TASKS[task][0]}\t{TASKS[task][1]}\t{self._name}\t{DATASET}\t{said}" for task in tasks)])


def _candidate(row: Row, media: str | None) -> dict[str, Any]:
    record: dict[str, Any] = {"did": did_of(row.id), "txt": row.text or None, "img_path": None, "modality": row.modality}
    if row.modality == "video":
        record["video_path"] = media
    elif row.modality != "text":
        record["img_path"] = media
    return record


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def _write(path: Path, lines: Iterable[str]) -> None:
    files.write_text(path, "".join(f"{line}\n" for line in lines))
