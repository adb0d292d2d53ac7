"""Measuring an encoder on a benchmark in M-BEIR's layout, over local pools and the global one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umr.bulk.staff import Staff
from umr.data.benchmark import Benchmark, PoolName, open_benchmark, searched_pools
from umr.data.mbeir import Setting
from umr.errors import RecipeError
from umr.evaluation.calibration import Calibration
from umr.evaluation.declarations import MIN_DEPTH, main_metric
from umr.evaluation.domains import domains
from umr.evaluation.embeddings import Embeddings, QueryVectors
from umr.evaluation.judged import check_judged
from umr.evaluation.metrics import Qrels
from umr.evaluation.modality import codes_of
from umr.evaluation.per_query import QueryScores
from umr.evaluation.rerank import Reranking, RerankReport, Search, ask, report
from umr.evaluation.result import EvaluationResult, PoolResult, Run, SettingResult
from umr.evaluation.scoring import Kinds, score
from umr.evaluation.searches import POOLS, Mixed, Searches, Target, chosen_settings, work_folder
from umr.evaluation.stamps import data_stamps, left_out, positive_stamps
from umr.evaluation.wording import Wording, check_wording
from umr.protocols import Encoder, query_text_of
from umr.store import parse_bytes


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
    memory: int | str | None = None,
    staff: Staff | None = None,
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
        instruction: `"first"` wording of each instruction, a `"seeded"` draw for each query, or `"none"`; see `umr.evaluation.wording`.
        depth: results a query, at least 10; MRR looks this far.
        rerank: order the first results anew by cosine + weight * P(Yes); see `umr.evaluation.rerank`.
        modality_filter: of the global pool rank only the candidates of the modality wanted; results call it `"global-filtered"`.
        calibration: add offsets to the scores of each modality in the global pool; results call it `"global-calibrated"`.
        memory: what the process may hold while it searches, as bytes or a size such as `"8GiB"`; where that is too little for all
            queries at once, they read the candidates in several passes. Results do not depend on it. By default no limit.
        staff: workers that embed in place of `encoder`, whose model they load, where there is much to do.

    Returns:
        Scores in percent, averages, rankings and times.

    Raises:
        DataError: unusable data, or an unknown setting.
        RecipeError: an argument without meaning, too little memory, or weights or offsets that were chosen for another model.
        StoreError: damaged vectors in `work_dir`, or a model that gives vectors that are zero or not finite.
    """
    benchmark = open_benchmark(Path(benchmark)) if isinstance(benchmark, str | Path) else benchmark
    benchmark = benchmark.with_query_text(query_text_of(encoder))
    mixed, limit = Mixed(modality_filter, calibration), None if memory is None else parse_bytes(memory)
    _check_arguments(pools, instruction, depth, rerank, mixed)
    if benchmark.one_pool and mixed != Mixed():
        raise RecipeError(f"{benchmark.root}: has one pool of texts; modality_filter and calibration have no effect there, leave them out")
    pools = searched_pools(benchmark, pools)
    _check_models(encoder.fingerprint, rerank, calibration)
    settings = chosen_settings(benchmark, split, tasks)
    check_judged(benchmark, settings, split)
    seconds: dict[str, float] = {}
    with work_folder(work_dir) as folder:
        searches = Searches(benchmark, split, settings, pools, depth, Embeddings(encoder, benchmark, folder, staff), mixed, seconds, limit)
        queries, targets = searches.embed_queries(instruction), searches.embed_candidates()
        runs = searches.runs(queries, targets)
        reranked = None
        if rerank is not None:
            runs, reranked = _reranked(rerank, encoder.fingerprint, searches, queries, targets, runs, instruction, folder)
        known = domains(benchmark, {one.dataset: queries[one.name].qids for one in settings})
        results, by_query = _Scoring(searches, queries, targets, known).settings(runs)
    return EvaluationResult(
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        data=benchmark.fingerprint(split, settings),
        split=split,
        instruction=instruction,
        depth=depth,
        settings=results,
        left_out=left_out(benchmark, split, settings, pools),
        rerank=reranked,
        mixed=mixed,
        own_positives=benchmark.own_positives,
        runs=runs,
        queries=by_query,
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

    def settings(self, runs: dict[tuple[str, str], Run]) -> tuple[tuple[SettingResult, ...], dict[tuple[str, str], QueryScores]]:
        """Scores of the rankings by setting, and of every query by setting and pool."""
        results, by_query = [], {}
        for setting in self.searches.settings:
            qrels = self.searches.benchmark.qrels(setting, self.searches.split)
            found = {}
            for pool in self.searches.names:
                found[pool], by_query[setting.name, pool] = self._pool(runs[setting.name, pool], setting, pool, qrels)
            task = " -> ".join(setting.modalities) if setting.modalities else "mixed"
            results.append(SettingResult(setting.name, task, main_metric(setting.name), len(self.queries[setting.name].qids), found))
        return tuple(results), by_query

    def _pool(self, run: Run, setting: Setting, pool: str, qrels: Qrels) -> tuple[PoolResult, QueryScores]:
        asked, target = self.queries[setting.name], self.targets[setting.name, pool]
        benchmark, split = self.searches.benchmark, self.searches.split
        kinds, ranked_N = None, None
        if target.modalities_N is not None:
            found_QK = target.modalities_N[run.rows_QK]
            kinds = Kinds(codes_of(asked.store.modalities), codes_of(asked.targets), found_QK, self.domains)
        if pool == "global-filtered":
            ranked_N = target.modalities == codes_of(asked.targets[:1])[0]
        stamps = data_stamps(benchmark, setting, split, pool, target.pool) | positive_stamps(benchmark, setting, split)
        return score(run, setting.name, qrels, self.searches.depth, target.pool, stamps, ranked_N, kinds)


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
