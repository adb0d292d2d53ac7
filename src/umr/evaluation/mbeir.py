"""Measuring an encoder on a benchmark in M-BEIR's layout, over local pools and the global one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.data.benchmark import Benchmark, Pool, PoolName, Queries, open_benchmark, searched_pools
from umr.data.mbeir import Setting
from umr.data.mbeir_records import is_text_retrieval
from umr.errors import RecipeError
from umr.evaluation.calibration import Calibration
from umr.evaluation.declarations import MIN_DEPTH, main_metric, metrics_of
from umr.evaluation.domains import domains, same_domain
from umr.evaluation.embeddings import Embeddings, QueryVectors
from umr.evaluation.metrics import Qrels, expected_hit_at, expected_ndcg_at, judge
from umr.evaluation.modality import ACCURACY_AT, OUTCOMES, Codes, Diagnosis, Flags, accuracy_at, codes_of, outcomes
from umr.evaluation.rerank import Reranking, RerankReport, Search, ask, report
from umr.evaluation.result import EvaluationResult, PoolResult, Run, SettingResult
from umr.evaluation.searches import POOLS, Mixed, Searches, Target, chosen_settings, work_folder
from umr.evaluation.wording import Wording, check_wording
from umr.protocols import Encoder, query_text_of


def evaluate(
    encoder: Encoder,
    benchmark: Benchmark | Path,
    pools: Sequence[PoolName] = POOLS,
    tasks: Sequence[str] | None = None,
    split: str = "test",
    work_dir: Path | None = None,
    instruction: Wording = "first",
    depth: int = 50,
    rerank: Reranking | None = None,
    modality_filter: bool = False,
    calibration: Calibration | None = None,
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
        modality_filter: of the global pool rank only the candidates of the modality wanted; results call it `"global-filtered"`.
        calibration: add offsets to the scores of each modality in the global pool; results call it `"global-calibrated"`.

    Returns:
        Scores in percent, averages, rankings and times.

    Raises:
        DataError: unusable data, or an unknown setting.
        RecipeError: an argument without meaning, or weights or offsets that were chosen for another model.
        StoreError: damaged vectors in `work_dir`, or a model that gives vectors that are zero or not finite.
    """
    benchmark = open_benchmark(Path(benchmark)) if isinstance(benchmark, str | Path) else benchmark
    benchmark = benchmark.with_query_text(query_text_of(encoder))
    mixed = Mixed(modality_filter, calibration)
    _check_arguments(pools, instruction, depth, rerank, mixed)
    if benchmark.one_pool and mixed != Mixed():
        raise RecipeError(f"{benchmark.root}: has one pool of texts; modality_filter and calibration have no effect there, leave them out")
    pools = searched_pools(benchmark, pools)
    _check_models(encoder.fingerprint, rerank, calibration)
    settings = chosen_settings(benchmark, split, tasks)
    seconds: dict[str, float] = {}
    with work_folder(work_dir) as folder:
        searches = Searches(benchmark, split, settings, pools, depth, Embeddings(encoder, benchmark, folder), mixed, seconds)
        queries, targets = searches.embed_queries(instruction), searches.embed_candidates()
        runs = searches.runs(queries, targets)
        reranked = None
        if rerank is not None:
            runs, reranked = _reranked(rerank, encoder.fingerprint, searches, queries, targets, runs, instruction, folder)
        known = domains(benchmark, {one.dataset: queries[one.name].qids for one in settings})
        results = _Scoring(searches, queries, targets, known).settings(runs)
    return EvaluationResult(
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        data=benchmark.fingerprint(split, settings),
        split=split,
        instruction=instruction,
        depth=depth,
        settings=results,
        left_out=_left_out(benchmark, split, settings, pools),
        rerank=reranked,
        mixed=mixed,
        runs=runs,
        seconds=seconds,
    )


@dataclass(frozen=True)
class _Scoring:
    """From rankings to scores.

    Attributes:
        searches: what was searched.
        domains: of datasets, by id.
    """

    searches: Searches
    queries: dict[str, QueryVectors]
    targets: dict[tuple[str, str], Target]
    domains: dict[int, str]

    def settings(self, runs: dict[tuple[str, str], Run]) -> tuple[SettingResult, ...]:
        """Scores of the rankings by setting."""
        results = []
        for setting in self.searches.settings:
            qrels = self.searches.benchmark.qrels(setting, self.searches.split)
            found = {pool: self._pool(runs[setting.name, pool], setting.name, pool, qrels) for pool in self.searches.names}
            task = " -> ".join(setting.modalities) if setting.modalities else "mixed"
            results.append(SettingResult(setting.name, task, main_metric(setting.name), len(self.queries[setting.name].qids), found))
        return tuple(results)

    def _pool(self, run: Run, setting: str, pool: str, qrels: Qrels) -> PoolResult:
        asked, target = self.queries[setting], self.targets[setting, pool]
        judged = judge(run.qids, run.rankings(), qrels, self.searches.depth)
        scores = {name: _percent(metric(judged)) for name, metric in metrics_of(setting, self.searches.depth).items()}
        diagnosis = None
        if target.modalities_N is not None:
            more, diagnosis = self._diagnosed(run, asked, target.modalities_N, judged.gain_QK[:, 0] > 0)
            scores |= more
        ranked_N = None
        if pool == "global-filtered":
            ranked_N = target.modalities == codes_of(asked.targets[:1])[0]
        size = len(target.pool) if ranked_N is None else int(ranked_N.sum())
        reachable_Q = _reachable(run.qids, qrels, target.pool, ranked_N)
        chance = {f"hit@{k}": _percent(expected_hit_at(reachable_Q, size, k)) for k in (1, 5, 10)}
        if is_text_retrieval(setting):
            chance["ndcg@10"] = _percent(expected_ndcg_at(judged, _reachable_gains(run.qids, qrels, target.pool), size, 10))
        return PoolResult(size, scores, chance, diagnosis)

    def _diagnosed(self, run: Run, asked: QueryVectors, modalities_N: Codes, right_Q: Flags) -> tuple[dict[str, float], Diagnosis]:
        """Modality accuracies and shares of the types of error in percent, and the counts behind them."""
        found_QK, wanted_Q = modalities_N[run.rows_QK], codes_of(asked.targets)
        first = run.dids.take(pa.array(run.rows_QK[:, 0])).to_pylist()
        types_Q = outcomes(right_Q, found_QK[:, 0] == wanted_Q, same_domain(run.qids, first, self.domains))
        scores = {f"modality_accuracy@{k}": _percent(accuracy_at(found_QK, wanted_Q, k)) for k in ACCURACY_AT}
        scores |= {name: _percent(types_Q == place) for place, name in enumerate(OUTCOMES) if place}
        return scores, Diagnosis.of(codes_of(asked.store.modalities), found_QK[:, 0], types_Q)


def _reranked(
    plan: Reranking,
    encoder: str,
    searches: Searches,
    queries: dict[str, QueryVectors],
    targets: dict[tuple[str, str], Target],
    runs: dict[tuple[str, str], Run],
    wording: Wording,
    folder: Path,
) -> tuple[dict[tuple[str, str], Run], RerankReport]:
    """Rankings with the first results in another order, and what the reranker did."""
    asked = [
        Search(setting, pool, run, wording, searches.label(queries[setting], targets[setting, pool]))
        for (setting, pool), run in runs.items()
    ]
    pairs = sum(len(run.qids) * min(plan.depth, run.rows_QK.shape[1]) for run in runs.values())
    with searches.timed("reranking", pairs, "pairs") as bar:
        found = ask(plan, searches.benchmark, searches.split, encoder, asked, folder, bar)
    qrels = {setting.name: searches.benchmark.qrels(setting, searches.split) for setting in searches.settings}
    fused = {key: one.fused(plan.weight(key[0])) for key, one in found.items()}
    return fused, report(plan, found, qrels, searches.depth)


def _left_out(benchmark: Benchmark, split: str, settings: Sequence[Setting], pools: Sequence[PoolName]) -> dict[str, int]:
    """How many lines were unusable, where the benchmark is read with `on_error="skip"`."""
    parts: dict[str, Sequence[Pool | Queries]] = {
        "queries": [benchmark.queries(setting, split) for setting in settings],
        "local candidates": [benchmark.pool(setting, split) for setting in settings if "local" in pools],
        "global candidates": [benchmark.global_pool(split)] if "global" in pools else [],
    }
    return {name: sum(len(one.problems) for one in opened) for name, opened in parts.items()}


def _reachable(qids: Sequence[str], qrels: Qrels, pool: Pool, ranked_N: Flags | None) -> npt.NDArray[np.int64]:
    """How many relevant candidates of each query are in the pool; M-BEIR judges some that are in another one.

    Args:
        qids: the queries.
        qrels: judgements.
        pool: N candidates.
        ranked_N: which of them are ranked; `None` for all.
    """
    pairs = [(row, did) for row, qid in enumerate(qids) for did in qrels.get(qid, ())]
    places = pool.find([did for _, did in pairs])
    inside = (places >= 0) & (True if ranked_N is None else ranked_N[places])
    return np.bincount(np.array([row for row, _ in pairs], np.int64)[inside], minlength=len(qids))


def _reachable_gains(qids: Sequence[str], qrels: Qrels, pool: Pool) -> npt.NDArray[np.float64]:
    """Sum of the relevances of each query's candidates that are in the pool."""
    judged = [(row, did, grade) for row, qid in enumerate(qids) for did, grade in qrels.get(qid, {}).items()]
    inside = pool.find([did for _, did, _ in judged]) >= 0
    rows, grades = (np.array([one[place] for one in judged], np.int64) for place in (0, 2))
    return np.asarray(np.bincount(rows[inside], grades[inside], minlength=len(qids)), np.float64)


def _percent(values_Q: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> float:
    return 100 * float(values_Q.mean())


def _check_arguments(pools: Sequence[PoolName], instruction: Wording, depth: int, rerank: Reranking | None, mixed: Mixed) -> None:
    if not pools or set(pools) - set(POOLS):
        raise RecipeError(f"pools must be some of {', '.join(POOLS)}, not {', '.join(pools) or 'none'}")
    for name, given in (("modality_filter", mixed.modality_filter), ("calibration", mixed.calibration is not None)):
        if given and "global" not in pools:
            raise RecipeError(f"{name} has no effect without the global pool; leave it out, or search the global pool")
    if mixed.modality_filter and mixed.calibration is not None:
        raise RecipeError("calibration has no effect with modality_filter, which ranks one modality alone; give one of them")
    check_wording(instruction)
    if depth < MIN_DEPTH:
        raise RecipeError(f"depth must be at least {MIN_DEPTH}, not {depth}: hit@10 and ndcg@10 look that far")
    if rerank is not None and rerank.depth > depth:
        raise RecipeError(f"rerank depth {rerank.depth} is above the {depth} results a query that are searched: raise depth, too")


def _check_models(encoder: str, rerank: Reranking | None, calibration: Calibration | None) -> None:
    if calibration is not None:
        calibration.check(encoder)
    if rerank is not None:
        rerank.check(encoder)
