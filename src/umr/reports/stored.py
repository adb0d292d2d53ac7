"""Looking again at an evaluation's vectors and probabilities, without loading its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from umr.data.benchmark import Benchmark, PoolName, open_benchmark
from umr.errors import StoreError
from umr.evaluation.embeddings import Embeddings, QueryVectors
from umr.evaluation.rerank import Reranking, RerankReport, Search, ask
from umr.evaluation.searches import Mixed, Searches, Target, chosen_settings
from umr.items import Item, Side
from umr.protocols import Vectors
from umr.rendering.pairs import Pair
from umr.reports.costs import Cost, costs
from umr.reports.saved import Evaluation


@dataclass(frozen=True)
class _StoredModel:
    """Stands for a model all of whose vectors, or probabilities, are in `work`; it makes none.

    Attributes:
        fingerprint: of the model.
        dimension: of its vectors.
        work: where they are looked for.
    """

    fingerprint: str
    dimension: int
    work: Path

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        self._missing("vectors")

    def score_pairs(self, pairs: Sequence[Pair]) -> Vectors:
        self._missing("probabilities")

    def _missing(self, what: str) -> NoReturn:
        raise StoreError(
            f"{self.work}: does not hold all {what} of {self.fingerprint[:12]} for this evaluation; "
            "name the folder that `umr eval --work` kept them in, or leave it out"
        )


def benchmark_of(evaluation: Evaluation, path: Path) -> Benchmark:
    """Open a benchmark as the evaluation read it: without unusable lines where it left some out, with the same right answers."""
    content = evaluation.content
    skipped = any(content["data"]["left_out"].values())
    return open_benchmark(path, "skip" if skipped else "fail", own_positives=content.get("positives") == "own")


@dataclass(frozen=True)
class Stored:
    """What an evaluation has stored.

    Attributes:
        searches: over local pools where they were searched, else over the global pool.
        queries: by setting.
        targets: by setting and pool.
    """

    searches: Searches
    queries: dict[str, QueryVectors]
    targets: dict[tuple[str, str], Target]


def stored_vectors(evaluation: Evaluation, benchmark: Benchmark, work: Path) -> Stored | None:
    """Open the vectors of an evaluation.

    Args:
        evaluation: of an embedder; one of somebody's run file has no vectors.
        benchmark: what was evaluated on.
        work: folder of its vectors.

    Returns:
        `None` without vectors, or where the global pool was searched with a filter or offsets alone.

    Raises:
        StoreError: not all of them are there.
    """
    content = evaluation.content
    pool: PoolName = "local" if "local" in content["averages"] else "global"
    if "dimension" not in content["model"] or pool not in content["averages"]:
        return None
    model = _StoredModel(content["model"]["fingerprint"], content["model"]["dimension"], work)
    split: str = content["data"]["split"]
    settings = chosen_settings(benchmark, split, [one["setting"] for one in content["settings"]])
    searches = Searches(benchmark, split, settings, (pool,), content["depth"], Embeddings(model, benchmark, work), Mixed(), {})
    return Stored(searches, searches.embed_queries(content["instruction"]), searches.embed_candidates())


def stored_costs(evaluation: Evaluation, benchmark: Benchmark, work: Path) -> list[Cost]:
    """Quality against cost from what an evaluation has stored.

    Args:
        evaluation: as of `stored_vectors`, like what follows.
        benchmark: likewise.
        work: folder of its vectors and probabilities.

    Returns:
        Empty where there are no vectors.

    Raises:
        StoreError: not all of them are there.
    """
    found = stored_vectors(evaluation, benchmark, work)
    if found is None:
        return []
    rerank = _reranked(evaluation.content, found, work) if "rerank" in evaluation.content else None
    return costs(found.searches, found.queries, found.targets, rerank)


def _reranked(content: Mapping[str, Any], stored: Stored, work: Path) -> RerankReport:
    """The probabilities that the reranker gave, with the weights that were used."""
    searches, queries, targets = stored.searches, stored.queries, stored.targets
    about, wording = content["rerank"], content["instruction"]
    plan = Reranking(_StoredModel(about["fingerprint"], 0, work), about["depth"])
    asked = [
        Search(setting, pool, run, wording, searches.label(queries[setting], targets[setting, pool]))
        for (setting, pool), run in searches.runs(queries, targets).items()
    ]
    with searches.timed("reading probabilities", sum(len(one.run.qids) for one in asked) * plan.depth, "pairs") as bar:
        found = ask(plan, searches.benchmark, searches.split, content["model"]["fingerprint"], asked, work, bar)
    return RerankReport(about["fingerprint"], about["depth"], about["weights"], about["chosen"], about["recall"], about["alone"], found)
