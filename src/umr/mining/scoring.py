"""`score`: a retriever finds candidates for queries, a reranker judges each, and a score table keeps both opinions.

The teacher's lists of distillation: U-MARVEL scores the first 50 candidates of a tenth of the training queries. It took local
pools alone, and its students lost on global ones; both are the default here. Right answers are not forced into a list.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from umr.bulk.crew import Crew
from umr.bulk.staff import Staff
from umr.bulk.work import ModelFolder
from umr.data.benchmark import Benchmark, Pool, open_benchmark
from umr.errors import RecipeError
from umr.evaluation.questions import asked, candidates, questions
from umr.evaluation.wording import Wording
from umr.mining.fill import PAIRS_PER_CALL, Asked, PairScorer, Place, fill
from umr.mining.panel import Judging, RerankerFolder
from umr.mining.queries import Group, training_data, training_groups
from umr.mining.recall import Found, recall
from umr.mining.scores_writer import Origin, ScoreWriter
from umr.mining.settings import checked
from umr.progress import progress
from umr.protocols import Encoder, query_text_of


class ScoreSettings(BaseModel):
    """Settings of `score`. Those that decide what a list is (`split`, `depth`, `instruction`) are the same for a whole table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pools: tuple[Literal["local", "global"], ...] = Field(("local", "global"), min_length=1)
    """Where candidates are found: the query's own data set and target modality, or everything."""
    depth: int = Field(50, ge=1)
    """Candidates a query and pool."""
    fraction: float = Field(0.1, gt=0, le=1)
    """Share of each setting's queries, drawn by a hash of qid and seed."""
    seed: int = 42
    settings: tuple[str, ...] | None = Field(None, min_length=1)
    """Names of settings; all when null."""
    split: Literal["train", "val", "test"] = "train"
    instruction: Literal["first", "seeded"] = "first"
    """Wording of the instruction that retriever and reranker see, the same one for both."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of both models' weights, where they are loaded here."""
    batch_tokens: int | None = Field(None, ge=1)
    """Token budget of a batch; by device when null."""
    prompts: str | None = None
    """What the reranker is asked by, where it is loaded here: a prompts file, or `zero-shot`; its own template when null."""

    @model_validator(mode="after")
    def _check(self) -> ScoreSettings:
        if len(set(self.pools)) < len(self.pools):
            raise ValueError("pools names a pool twice")
        return self


def parse(values: Mapping[str, Any], where: str = "scoring") -> ScoreSettings:
    """Check settings given as plain data. Raises `RecipeError` naming the first bad key."""
    return checked(ScoreSettings, values, where)


def score(
    model: str | Path | Encoder,
    reranker: str | Path | PairScorer,
    benchmark: Path | Benchmark,
    out: Path,
    settings: ScoreSettings | None = None,
    work_dir: Path | None = None,
    crew: Crew | None = None,
) -> Path:
    """Fill the score table in `out`, or go on with it. Lists that are there are kept, also those of other teachers.

    Interrupted and called again, it ends with the same lists and values.

    Args:
        model: the retriever: a model folder, a hub id, or one that is loaded.
        reranker: the teacher: a model folder, a hub id, or one that is loaded.
        benchmark: a reader, or the folder of the benchmark.
        out: folder of the table; see `umr.mining.scores.ScoreTable` for reading it.
        settings: what to score.
        work_dir: folder where the retriever's vectors are kept; by default a temporary one.
        crew: workers that embed and score. Default: this process.

    Returns:
        `out`.

    Raises:
        DataError: unusable data, or an unknown setting.
        ModelError: a folder that is no model, or workers that keep dying.
        RecipeError: a setting without effect, or a crew for a reranker that is loaded.
        StoreError: `out` holds scores of other data, another split, wording or depth.
    """
    settings = settings or ScoreSettings.model_validate({})
    crew = None if crew is None or crew.alone else crew
    if crew and not isinstance(reranker, str | Path):
        raise RecipeError("workers load the reranker themselves; give the folder of it, or no crew")
    benchmark = open_benchmark(Path(benchmark)) if isinstance(benchmark, str | Path) else benchmark
    data = training_data(benchmark) if settings.split == "train" else benchmark.fingerprint(settings.split)
    table = ScoreWriter(Path(out), data=data, split=settings.split, instruction=settings.instruction, depth=settings.depth)
    with tempfile.TemporaryDirectory(prefix="umr-score-") if work_dir is None else nullcontext(str(work_dir)) as folder:
        retriever, found = _recall(model, benchmark, settings, Path(folder), crew)
    load = _loader(reranker, settings)
    teacher = load("cpu" if crew else None)  # workers have theirs; here one is needed to know which it is
    label = str(reranker) if isinstance(reranker, str | Path) else teacher.fingerprint
    origin = Origin(retriever, teacher.fingerprint, label)
    benchmark = benchmark.with_query_text(query_text_of(teacher))  # type: ignore[arg-type]
    ask = _questions(benchmark, settings)
    pairs = sum(one.run.rows_QK.size for one in found)
    workers = crew.team(Judging(load, teacher.fingerprint), -(-pairs // PAIRS_PER_CALL)) if crew else nullcontext()
    with table.writing(), progress("scoring", pairs, "pairs") as bar, workers as team:
        for one in found:
            place = Place(one.setting, one.pool, ask(one.setting), candidates(benchmark, one.setting, settings.split, one.pool))
            fill(table, teacher, one.run, place, origin, bar, team=team)
    return Path(out)


def _recall(
    model: str | Path | Encoder, benchmark: Benchmark, settings: ScoreSettings, folder: Path, crew: Crew | None
) -> tuple[str, list[Found]]:
    """The retriever's fingerprint and its lists.

    All lists are held (12 bytes a candidate), so that it can leave the device before the reranker, which may be as large, comes.
    """
    staff = None
    if isinstance(model, str | Path):
        load = ModelFolder(str(model), settings.dtype, settings.batch_tokens)
        encoder, staff = load(), Staff.of(crew, load)
    else:
        encoder = model
    chosen = settings.model_dump(include={"split", "settings", "pools", "depth", "fraction", "seed", "instruction"})
    return encoder.fingerprint, list(recall(encoder, benchmark, folder, **chosen, staff=staff))


def _loader(reranker: str | Path | PairScorer, settings: ScoreSettings) -> Callable[[str | None], PairScorer]:
    if isinstance(reranker, str | Path):
        return RerankerFolder(str(reranker), settings.prompts, settings.dtype, settings.batch_tokens)
    if settings.prompts is not None:
        raise RecipeError("scoring: prompts has no effect on a reranker that is loaded already; load it with them as its template")
    return partial(_loaded, reranker)


def _loaded(reranker: PairScorer, device: str | None) -> PairScorer:
    return reranker


def _questions(benchmark: Benchmark, settings: ScoreSettings) -> Callable[[str], Callable[[str], Asked]]:
    """The queries by setting and qid."""
    if settings.split == "train":
        groups = training_groups(benchmark, settings.settings, settings.fraction, settings.seed)
        return {group.setting: _TrainingQuestions(group, benchmark.train_pool(), settings.instruction).find for group in groups}.__getitem__
    return lambda setting: questions(benchmark, setting, settings.split, settings.instruction)


class _TrainingQuestions:
    """The queries of one training setting by qid."""

    def __init__(self, group: Group, pool: Pool, wording: Wording) -> None:
        self._group, self._pool, self._wording = group, pool, wording
        self._places = {qid: place for place, qid in enumerate(group.qids)}

    def find(self, qid: str) -> Asked:
        place = self._places[qid]
        rows = np.unique(np.concatenate([self._group.positives[place], self._group.judged[place]]))
        return asked(self._group.query(place), tuple(self._pool.ids[int(row)] for row in rows), self._wording)
