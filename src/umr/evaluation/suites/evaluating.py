"""Measuring an encoder on a zero-shot suite."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from umr.data.fingerprint import fingerprint
from umr.errors import DataError, RecipeError
from umr.evaluation.searches import work_folder
from umr.evaluation.suites.protocols import Outcome
from umr.evaluation.suites.published import published_scores, published_sizes
from umr.evaluation.suites.registry import open_suite
from umr.evaluation.suites.reranking import SuiteReranking
from umr.evaluation.suites.result import RerankSettings, SuiteResult, SuiteTaskResult
from umr.evaluation.suites.task import Items, Suite, Task
from umr.evaluation.suites.vectors import SuiteVectors
from umr.evaluation.suites.wordings import Wordings
from umr.progress import progress
from umr.protocols import Encoder

OnMissing = Literal["fail", "skip"]


def evaluate_suite(
    encoder: Encoder,
    suite: Suite | str,
    root: Path | None = None,
    work_dir: Path | None = None,
    on_missing: OnMissing = "fail",
    wordings: Wordings | None = None,
    rerank: SuiteReranking | None = None,
) -> SuiteResult:
    """Embed a suite's queries and candidates, search exactly, and score as its papers do.

    Interrupted and called again with the same `work_dir`, it goes on where it stopped and ends with the same result.

    Args:
        encoder: the model.
        suite: an opened suite, or its name, one of `SUITES`.
        root: the folder, where `suite` is a name.
        work_dir: folder where vectors are kept for the next evaluation; by default a temporary one.
        on_missing: `"fail"` at the first image or video that is not there, or `"skip"`: leave out such candidates, queries that need
            them, and queries of which no right answer is left. The result then says how many are left out.
        wordings: instructions; by default those of the papers.
        rerank: order the first results anew by cosine + weight * P(Yes).

    Returns:
        Scores in percent, published ones beside them, and rankings.

    Raises:
        DataError: a file is missing or malformed.
        RecipeError: an argument without meaning.
        StoreError: damaged vectors in `work_dir`, or a model that gives vectors that are zero or not finite.
    """
    if on_missing not in ("fail", "skip"):
        raise RecipeError(f"on_missing must be fail or skip, not {on_missing!r}")
    if isinstance(suite, str):
        if root is None:
            raise RecipeError(f"suite {suite!r} needs a folder; give root")
        suite = open_suite(suite, root)
    elif root is not None:
        raise RecipeError("root has no effect on a suite that is open; leave it out")
    known = wordings or Wordings.load()
    data = fingerprint(suite.files, suite.root)
    tasks = []
    missing = _Missing(suite, on_missing)
    with work_folder(work_dir) as folder:
        vectors = SuiteVectors(encoder, suite.name, data, folder)
        for task in suite.tasks:
            whole, task = task, missing.without(task)
            instruction = known.of(suite.name, task.name, task.instruction)
            tasks.append(_measured(vectors, whole, task, instruction, rerank))
    return SuiteResult(
        suite=suite.name,
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        data=data,
        main=suite.main,
        tasks=tuple(tasks),
        averages=suite.averages,
        published=published_scores(suite.name),
        sizes=published_sizes(suite.name),
        rerank=None if rerank is None else RerankSettings(rerank.reranker.fingerprint, rerank.depth, rerank.weight),
    )


class _Missing:
    """Looks for media once, also where tasks share items."""

    def __init__(self, suite: Suite, on_missing: OnMissing) -> None:
        self._suite, self._on_missing = suite, on_missing
        self._known: dict[int, set[int]] = {}

    def without(self, task: Task) -> Task:
        """The task without what needs missing media. Raises `DataError` for `"fail"`, and where nothing is left."""
        queries, candidates = self._places(task.queries), self._places(task.candidates)
        if not queries and not candidates:
            return task
        left = task.without(queries, candidates)
        if not len(left.queries):
            raise DataError(f"{self._suite.root}: {task.name}: no query is left without the missing media; {self._suite.source}")
        return left

    def _places(self, items: Items) -> set[int]:
        if id(items) not in self._known:
            gone = dict(items.missing())
            if gone and self._on_missing == "fail":
                first = next(iter(gone.values()))
                raise DataError(
                    f"{first}: does not exist, one of {len(gone):,} missing among {len(items):,} {items.name}; {self._suite.source}; "
                    "or leave them out: on_missing skip"
                )
            self._known[id(items)] = set(gone)
        return self._known[id(items)]


def _measured(vectors: SuiteVectors, whole: Task, task: Task, instruction: str | None, rerank: SuiteReranking | None) -> SuiteTaskResult:
    with progress(f"embedding {task.name}", len(task.queries) + len(task.candidates)) as bar:
        queries = vectors.embed(task.queries, "query", instruction, bar)
        candidates = vectors.embed(task.candidates, "candidate", None, bar)
    qids, known = task.queries.ids, set(task.candidates.ids)
    with progress(f"searching {task.name}", len(qids), "queries") as bar:
        ranked = task.protocol.rank(qids, queries.read(0, len(queries)), candidates, bar)
    searched = found = task.protocol.judge(qids, ranked, known)
    if rerank is not None:
        with progress(f"reranking {task.name}", len(qids), "queries") as bar:
            ranked = rerank.rerank(task, ranked, instruction, vectors.folder / "yes", f"{queries.source} {candidates.source}", bar)
        found = task.protocol.judge(qids, ranked, known)
    left_out = {"queries": len(whole.queries) - len(task.queries), "candidates": len(whole.candidates) - len(task.candidates)}
    return SuiteTaskResult(
        task=task.name,
        instruction=instruction,
        queries=len(task.queries),
        candidates=len(task.candidates),
        metrics=_means(found),
        searched={} if rerank is None else _means(searched),
        chance={name: 100 * chance for name, chance in found.chance.items()},
        left_out={name: count for name, count in left_out.items() if count},
        values=found.values,
        ranked=ranked,
    )


def _means(found: Outcome) -> dict[str, float]:
    return {name: 100 * float(np.mean(values_Q)) for name, values_Q in found.values.items()}
