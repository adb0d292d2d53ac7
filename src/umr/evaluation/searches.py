"""What an evaluation searches: the vectors of queries and pools, embedded once, and the exact rankings."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from umr.data.benchmark import Benchmark, Pool, PoolName
from umr.data.mbeir import Setting
from umr.errors import DataError, RecipeError
from umr.evaluation.by_modality import Lists, Places, by_modality
from umr.evaluation.calibration import Calibration
from umr.evaluation.embeddings import Embeddings, QueryVectors
from umr.evaluation.modality import MODALITIES, Codes, codes_of
from umr.evaluation.own import own_rows, without_own
from umr.evaluation.result import Run
from umr.evaluation.streams import Stream, plan
from umr.evaluation.wording import Wording
from umr.progress import Bar, progress
from umr.store import Among, Asked, Saved, VectorStore, VectorView
from umr.store.streaming import Ranking

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
class _Wish:
    """What one setting asks of the stream.

    Attributes:
        asked: its queries, and the parts of the stream of all its pools, one after the other.
        kinds: of pools that are searched modality by modality, which parts these are.
        own: by pool, the rows of queries that are candidates as well.
    """

    asked: Asked
    kinds: dict[str, list[int]]
    own: dict[str, Places | None]


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
        memory: bytes that the process may hold while searching; `None` for no limit.
    """

    benchmark: Benchmark
    split: str
    settings: Sequence[Setting]
    pools: Sequence[PoolName]
    depth: int
    embeddings: Embeddings
    mixed: Mixed
    seconds: dict[str, float]
    memory: int | None = None

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
        """Rankings by setting and pool, from one stream of all candidates."""
        stream = Stream(target.vectors for target in targets.values())
        wishes = [self._wish(stream, setting.name, queries[setting.name], targets) for setting in self.settings]
        found = self._search(stream, [wish.asked for wish in wishes], queries, targets)
        runs = {}
        for setting, wish, rankings in zip(self.settings, wishes, found, strict=True):
            asked, following = queries[setting.name], iter(rankings)
            for pool in self.names:
                target = targets[setting.name, pool]
                if pool in wish.kinds:
                    assert self.mixed.calibration is not None
                    lists = Lists.of({kind: next(following) for kind in wish.kinds[pool]}, len(asked.qids), self.depth, len(target.pool))
                    rows_QK, scores_QK = lists.merged(self.mixed.calibration.offsets_of(codes_of(asked.store.modalities)))
                else:
                    rows_QK, scores_QK = without_own(*next(following), wish.own[pool], self.depth)
                runs[setting.name, pool] = Run(asked.qids, rows_QK, scores_QK, target.vectors.ids)
        return runs

    def _wish(self, stream: Stream, setting: str, asked: QueryVectors, targets: dict[tuple[str, str], Target]) -> _Wish:
        """What to search for one setting in all its pools."""
        parts, kinds, own = list[Among](), dict[str, list[int]](), dict[str, Places | None]()
        for pool in self.names:
            target = targets[setting, pool]
            among, own[pool] = stream.among(target.vectors), None
            if pool == "global-filtered":
                parts.append(among.where(target.modalities == self._wanted(setting, asked, target)))
            elif self.mixed.calibration is not None and pool == self.mixed.name:
                some = by_modality(among, target.modalities)
                kinds[pool] = list(some)
                parts += some.values()
            else:
                parts.append(among)
                own[pool] = own_rows(self.benchmark, asked.qids, target.pool)
        more = any(rows is not None for rows in own.values())
        return _Wish(Asked(asked.store, parts, self.depth + more), kinds, own)

    def _search(
        self, stream: Stream, asked: Sequence[Asked], queries: dict[str, QueryVectors], targets: dict[tuple[str, str], Target]
    ) -> list[list[Ranking]]:
        """One search of everything, within the memory given; a long one goes on where an earlier call stopped."""
        labels = [
            f"{setting} {pool} {self.label(queries[setting], target)}"
            for (setting, pool), target in sorted(targets.items(), key=itemgetter(0))
        ]
        sizes = [f"{one.depth} {len(one.queries)} {[len(pool) for pool in one.pools]}" for one in asked]
        label = hashlib.blake2b("\n".join([*labels, *sizes]).encode(), digest_size=8).hexdigest()
        searching = plan(stream, asked, self.memory, Saved(self.embeddings.folder / "searches", label))
        passes = len(searching.plan.passes)
        name = "searching" if passes < 2 else f"searching in {passes} passes"
        with self.timed("searching", searching.plan.reads, "candidates", name) as bar:
            return searching.run(bar)

    def _wanted(self, setting: str, asked: QueryVectors, target: Target) -> int:
        if len(set(asked.targets)) > 1:
            raise DataError(f"{setting}: its queries look for several modalities, and modality_filter ranks one; leave the setting out")
        wanted = MODALITIES.index(asked.targets[0])
        if wanted not in target.modalities:
            raise DataError(f"{target.pool.path}: has no candidate of the modality {asked.targets[0]!r} that {setting} looks for")
        return wanted

    def lists(self, queries: dict[str, QueryVectors], targets: dict[tuple[str, str], Target]) -> dict[str, Lists]:
        """For each setting the best candidates of each modality in the global pool."""
        stream = Stream(target.vectors for target in targets.values())
        target = targets[self.settings[0].name, self.mixed.name]
        parts = by_modality(stream.among(target.vectors), target.modalities)
        asked = [Asked(queries[setting.name].store, list(parts.values()), self.depth) for setting in self.settings]
        found = self._search(stream, asked, queries, targets)
        return {
            setting.name: Lists.of(dict(zip(parts, rankings, strict=True)), len(queries[setting.name].qids), self.depth, len(target.pool))
            for setting, rankings in zip(self.settings, found, strict=True)
        }

    def label(self, queries: QueryVectors, target: Target) -> str:
        """One hash for the data behind a search, and for what decides on its order besides the model."""
        stores = target.vectors.stores if isinstance(target.vectors, VectorView) else [target.vectors]
        sources = [queries.store.source, *sorted({store.source for store in stores})]
        if self.mixed.calibration is not None and target.modalities_N is not None:
            sources.append(repr(self.mixed.calibration.offsets))
        return hashlib.blake2b("\n".join(sources).encode(), digest_size=8).hexdigest()

    @contextmanager
    def timed(self, step: str, total: int, unit: str = "items", name: str | None = None) -> Iterator[Bar]:
        """Progress of a step, shown by `name` or its own, whose time is kept."""
        start = time.monotonic()
        with progress(name or step, total, unit) as bar:
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
