"""Training queries with lists of candidates that a teacher has scored."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from umr.data.benchmark import Benchmark, Pool, Queries, open_benchmark
from umr.data.fingerprint import fingerprint
from umr.data.instructions import choose
from umr.errors import RecipeError
from umr.losses.gathered import barrier, rank
from umr.progress import progress, quiet
from umr.protocols import query_text_of
from umr.training.examples import ListExample
from umr.training.recipe import Recipe
from umr.training.recipe_sections import DistillationSection, ScoredSection

if TYPE_CHECKING:
    from umr.mining.scores import ScoredList, ScoreTable
    from umr.protocols import Encoder
    from umr.store import VectorView


class ScoredSource:
    """The scored lists of one setting.

    Args:
        name: of the setting.
        table: the scores.
        lists_N: which lists of the table.
        queries: training queries, to look up what a list belongs to.
        pool: where candidates are looked up.
        instructions: as of `MBeirSource`.
        weight: w of the teacher's score (cosine + w * P(Yes)) / (1 + w).
        length: candidates a list.
        seed: of the draws.
        vectors: candidate vectors to use as they are; None has the candidates embedded.
    """

    def __init__(
        self,
        name: str,
        table: ScoreTable,
        lists_N: npt.NDArray[np.int64],
        queries: Queries,
        pool: Pool,
        instructions: str,
        weight: float,
        length: int,
        seed: int,
        vectors: VectorView | None = None,
    ) -> None:
        self.name, self.table, self.lists_N, self.queries, self.pool = name, table, lists_N, queries, pool
        self.instructions, self.weight, self.length, self.seed, self.vectors = instructions, weight, length, seed, vectors

    def __len__(self) -> int:
        return len(self.lists_N)

    def example(self, index: int, epoch: int) -> ListExample:
        """List `index` with its query."""
        found = self.table[int(self.lists_N[index])]
        query = self.queries.get(found.qid)
        instruction = None
        if self.instructions != "none":
            instruction = choose(query.instructions, query.qid, self.seed if self.instructions == "seeded" else None, epoch)
        dids = found.dids[: self.length]
        teacher_K = teacher_scores(found, self.weight)[: self.length]
        if self.vectors is None:
            return ListExample(query.item, instruction, tuple(self.pool.item(did) for did in dids), teacher_K)
        return ListExample(query.item, instruction, (), teacher_K, self.vectors.take(self.pool.find(dids)))


def teacher_scores(found: ScoredList, weight: float) -> npt.NDArray[np.float32]:
    """(cosine + w * P(Yes)) / (1 + w), which is the published (cosine + P(Yes)) / 2 for w = 1 (spec/umarvel.md 1.10).

    The original divides by 2 whatever w is; with a small w that halves the gaps between cosines, and teaches the student to blur what
    it can tell apart (docs/decisions.md).
    """
    return ((found.cosine_K + weight * found.yes_K) / (1 + weight)).astype(np.float32)


def open_scored(section: ScoredSection, recipe: Recipe, encoder: Encoder | None) -> tuple[list[ScoredSource], list[float], dict[str, str]]:
    """Open the scored lists of a recipe's section.

    Raises:
        DataError: missing or malformed files.
        RecipeError: a setting without lists, or a file of weights that cannot be used.
    """
    from umr.mining.queries import training_data
    from umr.mining.scores import ScoreTable

    assert isinstance(recipe.loss, DistillationSection)
    tree = open_benchmark(Path(section.path), section.on_error, "separate" if section.instructions == "none" else query_text_of(encoder))
    table, data = ScoreTable(Path(section.scores), section.revision), training_data(tree)
    if table.split != "train" or table.data != data:
        raise RecipeError(f"data: {section.scores} holds scores of other data than the training queries of {section.path}; score those")
    chosen = table.settings if section.settings is None else section.settings
    if unknown := [name for name in [*chosen, *section.weights] if name not in table.settings]:
        raise RecipeError(f"data: {section.scores} has no lists of {unknown[0]!r}; it has {', '.join(table.settings)}")
    if idle := [name for name in section.weights if name not in chosen]:
        raise RecipeError(f"data: a weight for {idle[0]!r} has no effect, because settings leaves it out")
    weight_of = _weights(recipe.loss.weight, chosen)
    pool = tree.train_pool()
    vectors = None if recipe.loss.vectors is None else _stored(tree, pool, encoder, Path(recipe.loss.vectors))
    queries = tree.train_queries(tree.settings("train") or None)  # a file may mix settings; there may be the union file alone
    sources = []
    for name in chosen:
        lists_N = table.of_setting(name, section.pools)
        if not len(lists_N):
            raise RecipeError(f"data: {section.scores} has no lists of {name!r} from the pools {', '.join(section.pools)}")
        common = (section.instructions, weight_of[name], recipe.loss.list_length, recipe.training.seed)
        sources.append(ScoredSource(name, table, lists_N, queries, pool, *common, vectors))
    fingerprints = {f"scored:{section.path}": data, f"scores:{section.scores}": table.fingerprint}
    if isinstance(recipe.loss.weight, str):
        file = Path(recipe.loss.weight)
        fingerprints[f"weights:{file}"] = fingerprint([file], file.parent)
    return sources, [section.weights.get(name, 1.0) for name in chosen], fingerprints


def _weights(weight: float | str, settings: list[str]) -> dict[str, float]:
    if not isinstance(weight, str):
        return dict.fromkeys(settings, float(weight))
    from umr.evaluation.rerank import Weights

    loaded = Weights.load(Path(weight))
    return {name: loaded.of(name) for name in settings}


def _stored(tree: Benchmark, pool: Pool, encoder: Encoder | None, folder: Path) -> VectorView:
    """The training pool's vectors by this encoder: those in the folder, after the first process has added what is missing."""
    from umr.evaluation.embeddings import Embeddings
    from umr.store import VectorView

    assert encoder is not None
    if rank():
        barrier()
    try:
        with quiet() if rank() else nullcontext(), progress("embedding candidates", len(pool)) as bar:
            store = Embeddings(encoder, tree, folder).candidates(pool, bar)
    finally:
        if not rank():
            barrier()
    return VectorView([store], pool.ids)
