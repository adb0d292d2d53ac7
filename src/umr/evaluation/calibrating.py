"""Fitting what is added to the scores of each modality in a mixed pool, on validation queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from umr.data.benchmark import Benchmark, Pool, open_benchmark
from umr.errors import RecipeError
from umr.evaluation.by_modality import Lists
from umr.evaluation.calibration import Calibration, Fit
from umr.evaluation.declarations import main_metric
from umr.evaluation.embeddings import Embeddings, QueryVectors
from umr.evaluation.metrics import Qrels
from umr.evaluation.modality import MODALITIES, Modality, codes_of
from umr.evaluation.offsets import JudgedLists, Vector, best_offsets
from umr.evaluation.searches import Mixed, Searches, chosen_settings, work_folder
from umr.evaluation.wording import Wording, check_wording
from umr.protocols import Encoder, query_text_of

GRID = tuple(round(0.02 * step, 2) for step in range(-25, 26))
"""-0.5 to 0.5 in steps of 0.02: differences of cosines."""
DEPTH = 50
"""Results a query that MRR looks at, as `evaluate` does by default."""


def calibrate(
    encoder: Encoder,
    benchmark: Benchmark | Path,
    split: str = "val",
    work_dir: Path | None = None,
    tasks: Sequence[str] | None = None,
    instruction: Wording = "first",
    grid: Sequence[float] = GRID,
) -> Calibration:
    """Find the offsets by modality with which the global pool of validation queries scores best; see `best_offsets`.

    An offset belongs to the modality of the query and that of the candidate. What a query looks for plays no part: a calibrated search
    knows nothing that a plain one does not. Whoever knows the modality wanted has the modality filter. So it takes
    tasks of one query modality that want different things to keep offsets moderate: with text -> image alone, nothing
    speaks against pushing every text to the end.

    Args:
        encoder: the model.
        benchmark: a reader, or the folder of the benchmark.
        split: of the queries; never `"test"`.
        work_dir: as of `evaluate`; vectors are shared with evaluations.
        tasks: names of settings; all by default.
        instruction: as of `evaluate`.
        grid: offsets to try, 0 among them.

    Raises:
        RecipeError: `split` is `"test"`, a grid without 0 or with something that is not finite, or a pool of one modality.
        DataError: unusable data, or no queries of that split.
    """
    if split == "test":
        raise RecipeError("offsets fitted on the test queries would make their scores meaningless: fit them on val")
    if 0 not in grid or not np.isfinite(grid).all():
        raise RecipeError("grid must hold finite offsets, 0 among them")
    check_wording(instruction)
    data = open_benchmark(Path(benchmark)) if isinstance(benchmark, str | Path) else benchmark
    data = data.with_query_text(query_text_of(encoder))
    settings = chosen_settings(data, split, tasks)
    with work_folder(work_dir) as folder:
        searches = Searches(data, split, settings, ("global",), DEPTH, Embeddings(encoder, data, folder), Mixed(), {})
        queries, targets = searches.embed_queries(instruction), searches.embed_candidates()
        target = targets[settings[0].name, "global"]
        present = [int(kind) for kind in np.unique(target.modalities)]
        if len(present) == 1:
            raise RecipeError(f"{target.pool.path}: holds {MODALITIES[present[0]]} alone, so that a calibration would have no effect")
        lists = searches.lists(queries, targets)
    judged = [(one.name, _judged(one.name, queries[one.name], lists[one.name], data.qrels(one, split), target.pool)) for one in settings]
    offsets: dict[Modality, dict[Modality, float]] = {}
    before: dict[Modality, Fit] = {}
    after: dict[Modality, Fit] = {}
    for kind, name in enumerate(MODALITIES):
        parts = [one.some(here_Q) for setting, one in judged if (here_Q := codes_of(queries[setting].store.modalities) == kind).any()]
        if parts:
            found_M = best_offsets(parts, present, sorted({float(value) for value in grid}))
            offsets[name] = {MODALITIES[place]: float(found_M[place]) for place in present}
            before[name], after[name] = _fit(parts, np.zeros_like(found_M)), _fit(parts, found_M)
    return Calibration(
        offsets=offsets,
        split=split,
        retriever=encoder.fingerprint,
        data=data.fingerprint(split, settings),
        instruction=instruction,
        tasks=tuple(one.name for one in settings),
        before=before,
        after=after,
    )


def _judged(setting: str, queries: QueryVectors, lists: Lists, qrels: Qrels, pool: Pool) -> JudgedLists:
    relevant = [pool.find(list(qrels.get(qid, ()))) for qid in queries.qids]
    cut = int(main_metric(setting).rsplit("@", 1)[1])
    return JudgedLists.of(lists, [rows[rows >= 0] for rows in relevant], codes_of(queries.targets), cut)


def _fit(settings: Sequence[JudgedLists], offsets_M: Vector) -> Fit:
    ranks = [one.ranks(offsets_M) for one in settings]
    return Fit(
        main=float(np.mean([one.main(ranks_Q) for one, ranks_Q in zip(settings, ranks, strict=True)])),
        mrr=float(np.mean([one.mrr(ranks_Q) for one, ranks_Q in zip(settings, ranks, strict=True)])),
        accuracy=float(np.mean([one.accuracy(offsets_M) for one in settings])),
    )
