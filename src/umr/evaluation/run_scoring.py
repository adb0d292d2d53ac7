"""Scoring rankings that somebody else made, without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from umr.data.benchmark import Benchmark, Pool, PoolName, open_benchmark
from umr.data.mbeir import Setting
from umr.errors import DataError, RecipeError
from umr.evaluation.declarations import DEEPEST, MIN_DEPTH, main_metric
from umr.evaluation.domains import domains
from umr.evaluation.judged import check_judged
from umr.evaluation.modality import ACCURACY_AT, codes_of
from umr.evaluation.per_query import QueryScores
from umr.evaluation.result import EvaluationResult, PoolResult, Run, SettingResult
from umr.evaluation.runs_in import Lines, Order, read_runs, to_run
from umr.evaluation.scoring import Kinds, score
from umr.evaluation.searches import POOLS, Mixed, chosen_settings
from umr.evaluation.stamps import SHORT, UNANSWERED, data_stamps, left_out, positive_stamps


def score_runs(
    runs: Mapping[PoolName, Sequence[Path]],
    benchmark: Benchmark | Path,
    tasks: Sequence[str] | None = None,
    split: str = "test",
    order: Order | None = None,
) -> EvaluationResult:
    """Score the run files of one system; the qids say which settings they are of.

    Every query of a setting counts: one without results scores 0, which a stamp says.

    Args:
        runs: files by the pool that was searched, `"local"` or `"global"`.
        benchmark: a reader, or the folder of the benchmark.
        tasks: settings to score, others being passed over; by default all that the files have.
        split: of the queries.
        order: `"rank"` or `"score"` decides where the two disagree; by default that is an error. Of equal scores ranks decide, but
            with `"score"` the greater did comes first, as in trec_eval.

    Returns:
        As of `umr.evaluation.evaluate`; `fingerprint` is a hash over the files.

    Raises:
        DataError: an unusable line, a query or a candidate that is not there, or a setting that only one of the pools has.
        RecipeError: an argument without meaning.
    """
    benchmark = open_benchmark(Path(benchmark)) if isinstance(benchmark, str | Path) else benchmark
    paths: dict[PoolName, list[Path]] = {pool: [Path(path) for path in runs[pool]] for pool in POOLS if pool in runs}
    if not any(paths.values()) or set(runs) - set(POOLS):
        raise RecipeError(f"runs must be files of {' or '.join(POOLS)} pools, not of {', '.join(runs) or 'none'}")
    if benchmark.one_pool and "global" in paths:
        raise RecipeError(f"{benchmark.root}: has one pool of texts, which is called local")
    wanted = chosen_settings(benchmark, split, tasks)
    owners = _owners(benchmark, wanted, split) if tasks is not None else {}
    everyone = _owners(benchmark, benchmark.settings(split), split)
    name = f"the queries of {benchmark.root}, split {split}"
    read = {pool: read_runs(files, everyone | owners, name, order) for pool, files in paths.items()}
    settings = [one for one in wanted if any(one.name in found for found in read.values())]
    for pool, found in read.items():
        for one in settings if tasks is None else wanted:
            if one.name not in found:
                raise DataError(f"{paths[pool][0]}: has no query of {one.name}; leave it out of tasks, or give its {pool} run")
    check_judged(benchmark, settings, split)
    scorer = _Scorer(benchmark, split, order, paths)
    results = tuple(scorer.setting(one, {pool: found[one.name] for pool, found in read.items()}) for one in settings)
    return EvaluationResult(
        fingerprint="run:" + _hash([*paths.get("local", []), *paths.get("global", [])], order),
        dimension=None,
        data=benchmark.fingerprint(split, settings),
        split=split,
        instruction="unknown",
        depth=max(run.rows_QK.shape[1] for run in scorer.runs.values()),
        settings=results,
        left_out=left_out(benchmark, split, settings, list(paths)),
        mixed=Mixed(),
        own_positives=benchmark.own_positives,
        runs=scorer.runs,
        queries=scorer.queries,
    )


class _Scorer:
    def __init__(self, benchmark: Benchmark, split: str, order: Order | None, paths: Mapping[PoolName, list[Path]]) -> None:
        self.benchmark, self.split, self.order, self.paths = benchmark, split, order, paths
        self.runs: dict[tuple[str, str], Run] = {}
        self.queries: dict[tuple[str, str], QueryScores] = {}

    def setting(self, setting: Setting, read: Mapping[PoolName, Lines]) -> SettingResult:
        qids = self.benchmark.queries(setting, self.split).ids
        pools: dict[str, PoolResult] = {}
        for name, lines in read.items():
            pools[name], self.queries[setting.name, name] = self._pool(setting, name, lines, qids)
        task = " -> ".join(setting.modalities) if setting.modalities else "mixed"
        return SettingResult(setting.name, task, main_metric(setting.name), len(qids), pools)

    def _pool(self, setting: Setting, name: PoolName, lines: Lines, qids: list[str]) -> tuple[PoolResult, QueryScores]:
        benchmark, split = self.benchmark, self.split
        pool = benchmark.pool(setting, split) if name == "local" else benchmark.global_pool(split)
        run = to_run(lines, qids, pool, self.paths[name], self.order, benchmark.shared_ids)
        self.runs[setting.name, name] = run
        stamps = data_stamps(benchmark, setting, split, name, pool) | positive_stamps(benchmark, setting, split)
        if empty := int((run.rows_QK[:, 0] < 0).sum()):
            stamps[UNANSWERED] = f"{empty:,} of {len(qids):,}"
        depth = run.rows_QK.shape[1]
        if depth < min(MIN_DEPTH, len(pool)):
            stamps[SHORT] = f"at most {depth}"
        kinds = self._kinds(setting, run, pool) if name == "global" else None
        whole = DEEPEST if depth >= len(pool) - benchmark.shared_ids else MIN_DEPTH  # nothing lies beneath the whole pool
        return score(run, setting.name, benchmark.qrels(setting, split), max(depth, whole), pool, stamps, kinds=kinds)

    def _kinds(self, setting: Setting, run: Run, pool: Pool) -> Kinds:
        """What the queries and their first results are."""
        queries = self.benchmark.queries(setting, self.split)
        known = [queries[place] for place in range(len(queries))]
        rows_QK = run.rows_QK[:, : max(ACCURACY_AT)]
        seen = np.unique(rows_QK[rows_QK >= 0])
        codes_N = np.full(len(run.dids) + 1, -1, np.int8)  # the last is that of no result
        codes_N[seen] = codes_of([pool.item(did).modality for did in run.dids.take(seen).to_pylist()])
        return Kinds(
            codes_of([one.item.modality for one in known]),
            codes_of([one.target_modality for one in known]),
            codes_N[rows_QK],
            domains(self.benchmark, {setting.dataset: run.qids}),
        )


def _owners(benchmark: Benchmark, settings: Sequence[Setting], split: str) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for setting in settings:
        for qid in benchmark.queries(setting, split).ids:
            owners.setdefault(qid, []).append(setting.name)
    return owners


def _hash(paths: Sequence[Path], order: Order | None) -> str:
    total = hashlib.sha256(repr(order).encode())
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]
