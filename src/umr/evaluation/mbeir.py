"""Measuring an encoder on a benchmark in M-BEIR's layout, over local pools and the global one."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.data.mbeir import MBeir, Pool, Queries, Setting
from umr.errors import DataError, RecipeError
from umr.evaluation.declarations import METRICS, MIN_DEPTH, main_metric
from umr.evaluation.embeddings import Embeddings, QueryVectors
from umr.evaluation.metrics import Qrels, expected_hit_at, judge
from umr.evaluation.rerank import Reranking, RerankReport, Search, ask, report
from umr.evaluation.result import EvaluationResult, PoolResult, Run, SettingResult
from umr.evaluation.wording import Wording, check_wording
from umr.progress import Bar, progress
from umr.protocols import Encoder, query_text_of
from umr.store import VectorStore, VectorView, exact_topk

PoolName: TypeAlias = Literal["local", "global"]
POOLS: tuple[PoolName, ...] = ("local", "global")


def evaluate(
    encoder: Encoder,
    benchmark: MBeir | Path,
    pools: Sequence[PoolName] = POOLS,
    tasks: Sequence[str] | None = None,
    split: str = "test",
    work_dir: Path | None = None,
    instruction: Wording = "first",
    depth: int = 50,
    rerank: Reranking | None = None,
) -> EvaluationResult:
    """Embed queries and candidates, search exactly, rerank where asked to, and score.

    Interrupted and called again with the same `work_dir`, it goes on where it stopped and ends with the same result.

    Args:
        encoder: the model.
        benchmark: a reader, or the folder of the benchmark.
        pools: `"local"`: each setting's own candidates; `"global"`: all candidates of the split.
        tasks: names of settings such as `"cirr_task7"`; all by default.
        split: `"test"` or `"val"`.
        work_dir: folder where vectors, and the reranker's probabilities, are kept for the next evaluation; by default a temporary one.
        instruction: `"first"` wording of each instruction, a `"seeded"` draw for each query, or `"none"`.
        depth: results a query, at least 10; MRR looks this far.
        rerank: order the first results anew by cosine + weight * P(Yes); see `umr.evaluation.rerank`.

    Returns:
        Scores in percent, averages, rankings and times.

    Raises:
        DataError: unusable data, or an unknown setting.
        RecipeError: an argument without meaning.
        StoreError: damaged vectors in `work_dir`, or a model that gives vectors that are zero or not finite.
    """
    benchmark = (benchmark if isinstance(benchmark, MBeir) else MBeir(Path(benchmark))).with_query_text(query_text_of(encoder))
    _check_arguments(pools, instruction, depth, rerank)
    settings = _settings(benchmark, split, tasks)
    with _folder(work_dir) as folder:
        job = _Job(encoder.fingerprint, benchmark, split, settings, pools, depth, Embeddings(encoder, benchmark, folder), {})
        queries = job.embed_queries(instruction)
        searches = job.embed_candidates()
        runs = job.search(queries, searches)
        reranked = None
        if rerank is not None:
            runs, reranked = job.rerank(rerank, queries, searches, runs, instruction, folder)
        results = job.score(queries, searches, runs)
    return EvaluationResult(
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        data=benchmark.fingerprint(split, settings),
        split=split,
        instruction=instruction,
        depth=depth,
        settings=results,
        left_out=job.left_out(),
        rerank=reranked,
        runs=runs,
        seconds=job.seconds,
    )


@dataclass(frozen=True)
class _Search:
    """One pool to search in for one setting."""

    pool: Pool
    vectors: VectorStore | VectorView


@dataclass(frozen=True)
class _Job:
    """The steps of one evaluation."""

    encoder: str
    benchmark: MBeir
    split: str
    settings: Sequence[Setting]
    pools: Sequence[PoolName]
    depth: int
    embeddings: Embeddings
    seconds: dict[str, float]

    def embed_queries(self, instruction: Wording) -> dict[str, QueryVectors]:
        """Query vectors by setting."""
        total = sum(len(self.benchmark.queries(setting, self.split)) for setting in self.settings)
        with self._timed("embedding queries", total) as bar:
            return {one.name: self.embeddings.queries(one, self.split, instruction, bar) for one in self.settings}

    def embed_candidates(self) -> dict[tuple[str, str], _Search]:
        """What to search in, by setting and pool name."""
        local, everything = self._open_pools()
        parts = local | (self._parts_of(everything, local) if everything is not None else {})
        with self._timed("embedding candidates", sum(map(len, parts.values()))) as bar:
            stores = {name: self.embeddings.candidates(pool, bar) for name, pool in parts.items()}
        searches = {(name, "local"): _Search(pool, stores[name]) for name, pool in local.items()}
        if everything is not None:
            view = self._view(everything, list(stores.values()))
            searches |= {(setting.name, "global"): _Search(everything, view) for setting in self.settings}
        return searches

    def _open_pools(self) -> tuple[dict[str, Pool], Pool | None]:
        local = {one.name: self.benchmark.pool(one, self.split) for one in self.settings} if "local" in self.pools else {}
        everything = self.benchmark.global_pool(self.split) if "global" in self.pools else None
        for pool in (*local.values(), *([] if everything is None else [everything])):
            if not len(pool):
                raise DataError(f"{pool.path}: has no usable candidates")
        return local, everything

    def _view(self, everything: Pool, stores: list[VectorStore]) -> VectorView:
        """The vectors of the global pool, after embedding what no local pool has."""
        missing = self.embeddings.missing(everything, stores)
        if missing:
            with self._timed("embedding further candidates", len(missing)) as bar:
                stores = [*stores, self.embeddings.some(everything, missing, bar)]
        return VectorView(stores, everything.ids)

    def _parts_of(self, everything: Pool, known: dict[str, Pool]) -> dict[str, Pool]:
        """Local pools that lie wholly in the global one: embedded on their own, they serve later evaluations too."""
        parts = {}
        for setting in self.benchmark.settings(self.split):
            if setting.name in known or not self.benchmark.pool_path(setting, self.split).is_file():
                continue
            pool = self.benchmark.pool(setting, self.split)
            if (everything.find(pool.ids) >= 0).all():
                parts[setting.name] = pool
        return parts

    def search(self, queries: dict[str, QueryVectors], searches: dict[tuple[str, str], _Search]) -> dict[tuple[str, str], Run]:
        """Rankings by setting and pool."""
        with self._timed("searching", sum(len(one.pool) for one in searches.values()), "candidates") as bar:
            return {
                (setting.name, pool): self._run(queries[setting.name], searches[setting.name, pool], bar)
                for setting in self.settings
                for pool in POOLS
                if pool in self.pools
            }

    def rerank(
        self,
        plan: Reranking,
        queries: dict[str, QueryVectors],
        searches: dict[tuple[str, str], _Search],
        runs: dict[tuple[str, str], Run],
        wording: Wording,
        folder: Path,
    ) -> tuple[dict[tuple[str, str], Run], RerankReport]:
        """Rankings with the first results in another order, and what the reranker did."""
        asked = [
            Search(setting, pool, run, wording, _label(queries[setting].store, searches[setting, pool].vectors))
            for (setting, pool), run in runs.items()
        ]
        pairs = sum(len(run.qids) * min(plan.depth, run.rows_QK.shape[1]) for run in runs.values())
        with self._timed("reranking", pairs, "pairs") as bar:
            found = ask(plan, self.benchmark, self.split, self.encoder, asked, folder, bar)
        qrels = {setting.name: self.benchmark.qrels(setting, self.split) for setting in self.settings}
        fused = {key: one.fused(plan.weight(key[0])) for key, one in found.items()}
        return fused, report(plan, found, qrels, self.depth)

    def score(
        self, queries: dict[str, QueryVectors], searches: dict[tuple[str, str], _Search], runs: dict[tuple[str, str], Run]
    ) -> tuple[SettingResult, ...]:
        """Scores of the rankings."""
        results = []
        for setting in self.settings:
            asked, qrels = queries[setting.name], self.benchmark.qrels(setting, self.split)
            found: dict[str, PoolResult] = {
                pool: _score(runs[setting.name, pool], asked, qrels, searches[setting.name, pool], self.depth, pool == "global")
                for pool in POOLS
                if pool in self.pools
            }
            task = " -> ".join(setting.modalities) if setting.modalities else "mixed"
            results.append(SettingResult(setting.name, task, main_metric(setting.name), len(asked.qids), found))
        return tuple(results)

    def _run(self, asked: QueryVectors, search: _Search, bar: Bar) -> Run:
        queries_QD = asked.store.read(0, len(asked.store))
        rows_QK, scores_QK = exact_topk(queries_QD, search.vectors, self.depth, bar=bar)
        return Run(asked.qids, rows_QK, scores_QK, search.vectors.ids)

    def left_out(self) -> dict[str, int]:
        """How many lines were unusable, where the benchmark is read with `on_error="skip"`."""
        parts: dict[str, Sequence[Pool | Queries]] = {
            "queries": [self.benchmark.queries(setting, self.split) for setting in self.settings],
            "local candidates": [self.benchmark.pool(setting, self.split) for setting in self.settings if "local" in self.pools],
            "global candidates": [self.benchmark.global_pool(self.split)] if "global" in self.pools else [],
        }
        return {name: sum(len(one.problems) for one in opened) for name, opened in parts.items()}

    @contextmanager
    def _timed(self, step: str, total: int, unit: str = "items") -> Iterator[Bar]:
        start = time.monotonic()
        with progress(step, total, unit) as bar:
            yield bar
        self.seconds[step] = time.monotonic() - start


def _label(queries: VectorStore, candidates: VectorStore | VectorView) -> str:
    """One hash for the data behind a search."""
    stores = candidates.stores if isinstance(candidates, VectorView) else [candidates]
    sources = [queries.source, *sorted({store.source for store in stores})]
    return hashlib.blake2b("\n".join(sources).encode(), digest_size=8).hexdigest()


def _score(run: Run, asked: QueryVectors, qrels: Qrels, search: _Search, depth: int, with_modality: bool) -> PoolResult:
    judged = judge(run.qids, run.rankings(), qrels, depth)
    found = {name: _percent(metric(judged)) for name, metric in METRICS.items()}
    if with_modality:
        first = search.vectors.modalities.take(pa.array(run.rows_QK[:, 0])).to_pylist()
        found["modality_accuracy@1"] = _percent(np.array(first) == np.array(asked.targets))
    reachable_Q = _reachable(run.qids, qrels, search.pool)
    chance = {f"hit@{k}": _percent(expected_hit_at(reachable_Q, len(search.pool), k)) for k in (1, 5, 10)}
    return PoolResult(len(search.pool), found, chance)


def _reachable(qids: Sequence[str], qrels: Qrels, pool: Pool) -> npt.NDArray[np.int64]:
    """How many relevant candidates of each query are in the pool; M-BEIR judges some that are in another one."""
    pairs = [(row, did) for row, qid in enumerate(qids) for did in qrels.get(qid, ())]
    inside = pool.find([did for _, did in pairs]) >= 0
    return np.bincount(np.array([row for row, _ in pairs], np.int64)[inside], minlength=len(qids))


def _percent(values_Q: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> float:
    return 100 * float(values_Q.mean())


def _settings(benchmark: MBeir, split: str, tasks: Sequence[str] | None) -> tuple[Setting, ...]:
    known = benchmark.settings(split)
    if not known:
        raise DataError(f"{benchmark.root}: has no queries of split {split!r}")
    for task in tasks or ():
        if task not in {setting.name for setting in known}:
            raise DataError(f"{benchmark.root}: has no task {task!r} in split {split!r}; it has " + ", ".join(one.name for one in known))
    if tasks is not None and not tasks:
        raise RecipeError("tasks is empty: name some, or leave it out for all")
    chosen = tuple(setting for setting in known if tasks is None or setting.name in tasks)
    for setting in chosen:
        if not len(benchmark.queries(setting, split)):
            raise DataError(f"{benchmark.query_path(setting, split)}: has no usable queries")
    return chosen


def _check_arguments(pools: Sequence[PoolName], instruction: Wording, depth: int, rerank: Reranking | None) -> None:
    if not pools or set(pools) - set(POOLS):
        raise RecipeError(f"pools must be some of {', '.join(POOLS)}, not {', '.join(pools) or 'none'}")
    check_wording(instruction)
    if depth < MIN_DEPTH:
        raise RecipeError(f"depth must be at least {MIN_DEPTH}, not {depth}: hit@10 and ndcg@10 look that far")
    if rerank is not None and rerank.depth > depth:
        raise RecipeError(f"rerank depth {rerank.depth} is above the {depth} results a query that are searched: raise depth, too")


@contextmanager
def _folder(work_dir: Path | None) -> Iterator[Path]:
    if work_dir is not None:
        yield Path(work_dir)
    else:
        with tempfile.TemporaryDirectory(prefix="umr-eval-") as folder:
            yield Path(folder)
