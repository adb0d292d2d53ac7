"""What an evaluation searches: the vectors of queries and pools, embedded once, and the exact rankings."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umr.data.benchmark import Benchmark, Pool, PoolName
from umr.data.mbeir import Setting
from umr.errors import DataError, RecipeError
from umr.evaluation.by_modality import Lists, search_each, topk_within
from umr.evaluation.calibration import Calibration
from umr.evaluation.embeddings import Embeddings, QueryVectors
from umr.evaluation.modality import MODALITIES, Codes, codes_of
from umr.evaluation.own import own_rows, topk_of_others
from umr.evaluation.result import Run
from umr.evaluation.wording import Wording
from umr.progress import Bar, progress
from umr.store import VectorStore, VectorView

POOLS: tuple[PoolName, ...] = ("local", "global")


@dataclass(frozen=True)
class Mixed:
    """How the global pool is searched.

    Attributes:
        modality_filter: only candidates of the modality wanted are ranked.
        calibration: offsets added to the scores of each modality.
    """

    modality_filter: bool = False
    calibration: Calibration | None = None

    @property
    def name(self) -> str:
        """Name of the pool in results: a filtered or calibrated one is never called `"global"`."""
        return "global-filtered" if self.modality_filter else "global" if self.calibration is None else "global-calibrated"

    def to_json(self) -> dict[str, Any]:
        """What the JSON of an evaluation says of it; empty for a plain search."""
        if self.calibration is not None:
            return {"calibration": {"offsets": self.calibration.offsets, "chosen": self.calibration.origin}}
        return {"modality_filter": True} if self.modality_filter else {}


@dataclass(frozen=True)
class Target:
    """One pool to search in for one setting.

    Attributes:
        pool: its candidates.
        vectors: theirs, in the same order.
        modalities_N: of a global pool, what each candidate is, by what was embedded; `None` for a local one.
    """

    pool: Pool
    vectors: VectorStore | VectorView
    modalities_N: Codes | None = None

    @property
    def modalities(self) -> Codes:
        """`modalities_N` of a global pool."""
        assert self.modalities_N is not None
        return self.modalities_N


@dataclass(frozen=True)
class Searches:
    """The searches of one evaluation, by setting and pool name.

    Attributes:
        benchmark: where queries and candidates come from.
        split: of the queries.
        settings: which searches.
        pools: in what.
        depth: results a query.
        embeddings: makes the vectors.
        mixed: how the global pool is searched.
        seconds: time taken by step, filled in on the way.
    """

    benchmark: Benchmark
    split: str
    settings: Sequence[Setting]
    pools: Sequence[PoolName]
    depth: int
    embeddings: Embeddings
    mixed: Mixed
    seconds: dict[str, float]

    @property
    def names(self) -> list[str]:
        """Names of the pools in results, local first."""
        return [self.mixed.name if pool == "global" else pool for pool in POOLS if pool in self.pools]

    def embed_queries(self, instruction: Wording) -> dict[str, QueryVectors]:
        """Query vectors by setting."""
        total = sum(len(self.benchmark.queries(setting, self.split)) for setting in self.settings)
        with self.timed("embedding queries", total) as bar:
            return {one.name: self.embeddings.queries(one, self.split, instruction, bar) for one in self.settings}

    def embed_candidates(self) -> dict[tuple[str, str], Target]:
        """What to search in, by setting and pool name."""
        local, everything = self._open_pools()
        parts = local | (self._parts_of(everything, local) if everything is not None else {})
        with self.timed("embedding candidates", sum(map(len, parts.values()))) as bar:
            stores = {name: self.embeddings.candidates(pool, bar) for name, pool in parts.items()}
        targets = {(name, "local"): Target(pool, stores[name]) for name, pool in local.items()}
        if everything is not None:
            view = self._view(everything, list(stores.values()))
            mixed = Target(everything, view, np.concatenate([codes_of(store.modalities) for store in view.stores])[view.rows])
            targets |= {(setting.name, self.mixed.name): mixed for setting in self.settings}
        return targets

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
            with self.timed("embedding further candidates", len(missing)) as bar:
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

    def runs(self, queries: dict[str, QueryVectors], targets: dict[tuple[str, str], Target]) -> dict[tuple[str, str], Run]:
        """Rankings by setting and pool."""
        with self.timed("searching", sum(len(one.pool) for one in targets.values()), "candidates") as bar:
            keys = [(setting.name, pool) for setting in self.settings for pool in self.names]
            return {key: self._run(key, queries[key[0]], targets[key], bar) for key in keys}

    def _run(self, key: tuple[str, str], asked: QueryVectors, target: Target, bar: Bar) -> Run:
        setting, pool = key
        queries_QD = asked.store.read(0, len(asked.store))
        if pool == "global-filtered":
            wanted = self._wanted(setting, asked, target)
            rows_QK, scores_QK = topk_within(queries_QD, target.vectors, target.modalities, wanted, self.depth)
            bar.advance(len(target.pool))
        elif self.mixed.calibration is not None and pool == self.mixed.name:
            offsets_QM = self.mixed.calibration.offsets_of(codes_of(asked.store.modalities))
            rows_QK, scores_QK = search_each(queries_QD, target.vectors, target.modalities, self.depth, bar).merged(offsets_QM)
        else:
            own_Q = own_rows(self.benchmark, asked.qids, target.pool)
            rows_QK, scores_QK = topk_of_others(queries_QD, target.vectors, self.depth, own_Q, bar)
        return Run(asked.qids, rows_QK, scores_QK, target.vectors.ids)

    def _wanted(self, setting: str, asked: QueryVectors, target: Target) -> int:
        if len(set(asked.targets)) > 1:
            raise DataError(f"{setting}: its queries look for several modalities, and modality_filter ranks one; leave the setting out")
        wanted = MODALITIES.index(asked.targets[0])
        if wanted not in target.modalities:
            raise DataError(f"{target.pool.path}: has no candidate of the modality {asked.targets[0]!r} that {setting} looks for")
        return wanted

    def lists(self, queries: dict[str, QueryVectors], targets: dict[tuple[str, str], Target]) -> dict[str, Lists]:
        """For each setting the best candidates of each modality in the global pool."""
        with self.timed("searching", sum(len(one.pool) for one in targets.values()), "candidates") as bar:
            found = {}
            for setting in self.settings:
                store, target = queries[setting.name].store, targets[setting.name, self.mixed.name]
                found[setting.name] = search_each(store.read(0, len(store)), target.vectors, target.modalities, self.depth, bar)
            return found

    def label(self, queries: QueryVectors, target: Target) -> str:
        """One hash for the data behind a search, and for what decides on its order besides the model."""
        stores = target.vectors.stores if isinstance(target.vectors, VectorView) else [target.vectors]
        sources = [queries.store.source, *sorted({store.source for store in stores})]
        if self.mixed.calibration is not None and target.modalities_N is not None:
            sources.append(repr(self.mixed.calibration.offsets))
        return hashlib.blake2b("\n".join(sources).encode(), digest_size=8).hexdigest()

    @contextmanager
    def timed(self, step: str, total: int, unit: str = "items") -> Iterator[Bar]:
        """Progress of a step, whose time is kept."""
        start = time.monotonic()
        with progress(step, total, unit) as bar:
            yield bar
        self.seconds[step] = time.monotonic() - start


def chosen_settings(benchmark: Benchmark, split: str, tasks: Sequence[str] | None) -> tuple[Setting, ...]:
    """The settings asked for, or all. Raises `DataError` or `RecipeError` where there are none of that name or no queries."""
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


@contextmanager
def work_folder(work_dir: Path | None) -> Iterator[Path]:
    """The folder for vectors: the one given, or a temporary one."""
    if work_dir is not None:
        yield Path(work_dir)
    else:
        with tempfile.TemporaryDirectory(prefix="umr-eval-") as folder:
            yield Path(folder)
