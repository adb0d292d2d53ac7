"""World's text-retrieval set, in BEIR's layout: reports of visits to households, and questions that take more than matching words.

It is drawn from a stream of its own and has a version and a digest of its own, so that the rest of World is the same with and
without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umr.data.world.book import PLAN_STREAM, WORDS_STREAM
from umr.data.world.households import Condition, Family, Told, Visit, draw_family, everything, grade
from umr.data.world.names import people
from umr.data.world.random_stream import Stream
from umr.data.world.scene import draw_until
from umr.data.world.settings import DATASETS, Scale
from umr.data.world.visit_words import ask, tell
from umr.errors import DataError

FOLDER = "text_retrieval"
MARK = f"{FOLDER}.json"
TEXT_VERSION = 1
"""Raised whenever the same seed would give other bytes of this set."""
SHARES = {"train": 0.7, "dev": 0.1, "test": 0.2}
"""Of the families. No family, so no person, is in two splits; the documents of all are one corpus."""
QUESTIONS = {"train": 2, "dev": 1, "test": 1}
"""About a visit."""
BRIEF, TWICE = 0.4, 0.15
"""Share of visits that a shorter document tells a part of, and that a second one tells in full in other words."""
NEAR = 4
"""Documents of the same family that are judged 0 for a train query."""
INSTRUCTIONS = (
    "Find the report of the visit that this question is about.",
    "Which visit report has everything that is asked for?",
    "Look for the report that answers this question about a house.",
    "Answer with the report of the visit where all of this is so.",
)
_PART = len(DATASETS) + 30  # its number in the keys of streams, apart from all others


@dataclass(frozen=True)
class Document:
    """A text about a visit: which of its parts it tells."""

    house: int
    visit: int
    told: Told
    title: str
    text: str


def add_text_retrieval(root: Path, scale: Scale, size: str, seed: int) -> None:
    """Write the set into a World, or leave it as it is where it is there already.

    Raises:
        DataError: another version of it is there.
    """
    folder = root / FOLDER
    if (folder / MARK).is_file():
        there = json.loads((folder / MARK).read_text("utf-8")).get("version")
        if there != TEXT_VERSION:
            raise DataError(f"{folder}: has version {there}, not {TEXT_VERSION}; remove this folder and ask for the World again")
        return
    partial = root / f".{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "qrels").mkdir(parents=True)
    files = _files(scale, seed)
    lines = "".join(f"{name} {hashlib.sha256(files[name].encode()).hexdigest()}\n" for name in sorted(files))
    counts = {name: text.count("\n") for name, text in files.items() if name.endswith(".jsonl")}
    for name, text in files.items():
        (partial / name).write_bytes(text.encode())
    about = {"version": TEXT_VERSION, "size": size, "seed": seed, **counts, "sha256": hashlib.sha256(lines.encode()).hexdigest()}
    (partial / MARK).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def _files(scale: Scale, seed: int) -> dict[str, str]:
    """Path and content of every file."""
    corpus: list[dict[str, Any]] = []
    queries: list[dict[str, Any]] = []
    files = {"instructions.txt": "".join(f"{line}\n" for line in INSTRUCTIONS)}
    used: set[str] = set()
    for number, (split, share) in enumerate(SHARES.items()):
        stream, words = Stream(seed, _PART, number, PLAN_STREAM), Stream(seed, _PART, number, WORDS_STREAM)
        lines = ["query-id\tcorpus-id\tscore\n"]
        for _ in range(max(1, round(share * families(scale)))):
            family = draw_family(stream, *_names(stream, scale.names, used), QUESTIONS[split])
            documents = list(_documents(words, family))
            dids = [f"visit-{len(corpus) + place}" for place in range(len(documents))]
            corpus += [_record(did, document, family) for did, document in zip(dids, documents, strict=True)]
            for house, visit, conditions in _asked(family):
                qid = f"question-{len(queries)}"
                text, said = ask(words, conditions, family.visits[house][visit].people), [list(one) for one in conditions]
                queries.append({"_id": qid, "text": text, "metadata": {"asks": [one.sort for one in conditions], "claims": said}})
                lines += _judgements(words, qid, dids, documents, family, house, conditions, NEAR if split == "train" else 0)
        files[f"qrels/{split}.tsv"] = "".join(lines)
    order = Stream(seed, _PART, len(SHARES), PLAN_STREAM)
    files["corpus.jsonl"] = _lines(order.sample(corpus, len(corpus)))
    files["queries.jsonl"] = _lines(queries)
    return files


def families(scale: Scale) -> int:
    """How many families there are: each takes four of the names."""
    return min(4 * scale.names, scale.names**2 // 12)


def _names(stream: Stream, n_names: int, used: set[str]) -> tuple[list[str], list[str]]:
    """Two given and two family names, none of whose combinations is taken."""

    def make() -> tuple[list[str], list[str]] | None:
        given, family = (stream.sample(pool, 2) for pool in people(n_names))
        full = {f"{g} {f}" for g in given for f in family}
        if full & used:
            return None
        used.update(full)
        return given, family

    return draw_until(make)


def _documents(words: Stream, family: Family) -> Iterator[Document]:
    for house, visits in enumerate(family.visits):
        for number, visit in enumerate(visits):
            told = [everything(visit)] * (2 if words.chance(TWICE) else 1)
            if words.chance(BRIEF):
                told.append(frozenset(words.sample(sorted(everything(visit)), 2)))
            for parts in told:
                yield Document(house, number, parts, f"A visit on {visit.day}.", tell(words, visit, parts))


def _asked(family: Family) -> Iterator[tuple[int, int, tuple[Condition, ...]]]:
    for (house, visit), questions in family.questions.items():
        for conditions in questions:
            yield house, visit, conditions


def _judgements(
    words: Stream,
    qid: str,
    dids: list[str],
    documents: list[Document],
    family: Family,
    house: int,
    conditions: tuple[Condition, ...],
    near: int,
) -> list[str]:
    """Lines of judgements: what answers, and for training some of what does not, of this household and the other."""
    grades = [grade(conditions, family.visits[house][one.visit], one.told) if one.house == house else 0 for one in documents]
    wrong = [did for did, value in zip(dids, grades, strict=True) if not value]
    chosen = [(did, value) for did, value in zip(dids, grades, strict=True) if value]
    chosen += [(did, 0) for did in words.sample(wrong, min(near, len(wrong)))]
    return [f"{qid}\t{did}\t{value}\n" for did, value in chosen]


def _record(did: str, document: Document, family: Family) -> dict[str, Any]:
    visit: Visit = family.visits[document.house][document.visit]
    facts = {
        "people": visit.people,
        "habits": [[*key, value] for key, value in visit.habits.items()],
        "yard": [[kind.name, number] for kind, number in visit.yard.items()],
        "lacking": visit.lacking.name,
        "told": sorted(document.told),
    }
    return {"_id": did, "title": document.title, "text": document.text, "metadata": facts}


def _lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
