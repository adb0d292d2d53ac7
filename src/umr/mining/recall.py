"""What a model finds for queries, by exact search in local and global pools, a block of queries at a time.

For training queries the global pool is the whole training pool, embedded once; the local pool of a setting is a view of it: the
candidates of the setting's data set and target modality. For `val` and `test` both are the benchmark's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umr.bulk.staff import Staff
from umr.data.benchmark import Benchmark, searched_pools
from umr.errors import DataError, RecipeError
from umr.evaluation.embeddings import Embeddings, QueryVectors
from umr.evaluation.own import own_rows, without_own
from umr.evaluation.result import Run
from umr.evaluation.streams import Stream, plan
from umr.evaluation.wording import Wording
from umr.mining.queries import Group, drawn, training_groups
from umr.progress import progress
from umr.protocols import Encoder, query_text_of
from umr.store import ArrayRows, VectorStore, VectorView
from umr.store.asked import Asked as Wish

PoolName: TypeAlias = Literal["local", "global"]
POOLS: tuple[PoolName, ...] = ("local", "global")
BLOCK = 16384
"""Queries whose rankings are in memory at once."""


@dataclass(frozen=True)
class Found:
    """Rankings of some queries of one setting over one pool; a setting of many queries comes as several of them.

    Attributes:
        setting: such as `"mscoco_task0"`.
        pool: `"local"` or `"global"`.
        run: rankings with cosines.
    """

    setting: str
    pool: str
    run: Run


@dataclass(frozen=True)
class Asked:
    """The queries of one setting and what they are searched in.

    Attributes:
        setting: its name.
        queries: vectors of its queries.
        rows_Q: which of them are searched with.
        pools: what to search in, by pool name.
        own_Q: row that is the query itself, -1 where there is none, of each query; `None` where ids are not shared.
    """

    setting: str
    queries: QueryVectors
    rows_Q: npt.NDArray[np.int64]
    pools: dict[str, VectorStore | VectorView]
    own_Q: npt.NDArray[np.int64] | None = None

    def search(self, pools: Sequence[PoolName], start: int, stop: int, depth: int) -> list[Run]:
        """Rankings of queries `start` to `stop` in each pool; the candidates of all of them are read once."""
        stream = Stream(self.pools[pool] for pool in pools)
        rows_Q = self.rows_Q[start:stop]
        own_Q = None if self.own_Q is None else self.own_Q[rows_Q]
        parts = [stream.among(self.pools[pool]) for pool in pools]
        wish = Wish(ArrayRows(self.queries.store.take(rows_Q)), parts, depth + (own_Q is not None))
        (found,) = plan(stream, [wish], None).run()
        qids = tuple(self.queries.qids[int(row)] for row in rows_Q)
        return [Run(qids, *without_own(*one, own_Q, depth), self.pools[pool].ids) for pool, one in zip(pools, found, strict=True)]


def recall(
    encoder: Encoder,
    benchmark: Benchmark,
    work_dir: Path,
    *,
    split: str = "train",
    settings: Sequence[str] | None = None,
    pools: Sequence[PoolName] = POOLS,
    depth: int = 100,
    fraction: float = 1.0,
    seed: int = 42,
    instruction: Wording = "first",
    staff: Staff | None = None,
) -> Iterator[Found]:
    """Embed, search exactly, and yield what was found, at most `BLOCK` queries at a time.

    Vectors are kept in `work_dir`, the same ones that evaluation uses: an interrupted call goes on from there.

    Args:
        encoder: the model.
        benchmark: where queries and pools come from.
        work_dir: folder for the vectors.
        split: `"train"`, `"val"` or `"test"`. Training queries that occur more than once are asked once.
        settings: names of settings; all by default. In training also of files that mix tasks, whose queries are grouped by task.
        pools: which to search.
        depth: results a query.
        fraction: share of each setting's queries, drawn by a hash of qid and `seed`.
        seed: of that draw.
        instruction: `"first"` wording of each instruction, or a `"seeded"` draw by qid (`umr.evaluation.wording.SEED`).
        staff: workers that embed in place of `encoder` where there is much to do.

    Raises:
        DataError: unusable data, an unknown setting, or a pool without candidates.
        RecipeError: an argument without meaning.
        StoreError: damaged vectors in `work_dir`, or a model that gives vectors that are zero or not finite.
    """
    if not pools or set(pools) - set(POOLS):
        raise RecipeError(f"pools must be some of {', '.join(POOLS)}, not {', '.join(pools) or 'none'}")
    if depth < 1 or not 0 < fraction <= 1:
        raise RecipeError(f"depth must be at least 1 and fraction above 0 and at most 1, not {depth} and {fraction}")
    benchmark, pools = benchmark.with_query_text(query_text_of(encoder)), searched_pools(benchmark, pools)
    embeddings = Embeddings(encoder, benchmark, work_dir, staff)
    if split == "train":
        asked = ask_training(embeddings, benchmark, training_groups(benchmark, settings, fraction, seed), pools, instruction)
    else:
        asked = _ask_split(embeddings, benchmark, split, settings, pools, instruction, fraction, seed)
    total = sum(len(one.rows_Q) for one in asked) * len(pools)
    with progress("searching", total, "queries") as bar:
        for one in asked:
            for start in range(0, len(one.rows_Q), BLOCK):
                for pool, run in zip(pools, one.search(pools, start, start + BLOCK, depth), strict=True):
                    yield Found(one.setting, pool, run)
                    bar.advance(len(run.qids))


def ask_training(
    embeddings: Embeddings, benchmark: Benchmark, groups: Sequence[Group], pools: Sequence[PoolName], wording: Wording
) -> list[Asked]:
    """Embed training queries and the training pool, in the order of `groups`."""
    pool = benchmark.train_pool()
    if not len(pool):
        raise DataError(f"{pool.path}: has no usable candidates")
    with progress("embedding queries", sum(len(group.qids) for group in groups)) as bar:
        vectors = [embeddings.train_queries(group.setting, group.queries, group.places_Q, wording, bar) for group in groups]
    with progress("embedding candidates", len(pool)) as bar:
        store = embeddings.candidates(pool, bar)
    datasets, views = _datasets(store.ids), _Views(store)
    asked = []
    for group, queries in zip(groups, vectors, strict=True):
        places: dict[str, VectorStore | VectorView] = {"global": store}
        if "local" in pools:
            places["local"] = store if group.datasets is None else views.of(group, group.datasets, datasets)
        own_Q = own_rows(benchmark, group.qids, pool)
        asked.append(Asked(group.setting, queries, np.arange(len(group.qids)), places, own_Q))
    return asked


class _Views:
    """Local pools as views of the training pool; settings of one data set and modality share theirs."""

    def __init__(self, store: VectorStore) -> None:
        self._store, self._known = store, dict[tuple[frozenset[int | None], str], VectorView]()

    def of(self, group: Group, wanted: frozenset[int | None], datasets: pa.ChunkedArray) -> VectorView:
        key = wanted, group.target
        if key not in self._known:
            own = pc.is_in(datasets, value_set=pa.array(sorted(-1 if one is None else one for one in wanted), pa.int64()))
            ids = self._store.ids.filter(pc.and_(own, pc.equal(self._store.modalities, group.target)))
            if not len(ids):
                raise DataError(
                    f"{group.setting}: the training pool has no candidates of its data set with modality {group.target}, so no local "
                    "pool; search the global one only"
                )
            self._known[key] = VectorView([self._store], ids)
        return self._known[key]


def _datasets(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The data set in each id, -1 where it is not written `<dataset>:<number>`; see `umr.data.mbeir_records.dataset_of`."""
    heads = pc.struct_field(pc.extract_regex(ids, r"^(?P<dataset>[0-9]{1,18}):"), "dataset")
    return pc.fill_null(pc.cast(heads, pa.int64()), -1)


def _ask_split(
    embeddings: Embeddings,
    benchmark: Benchmark,
    split: str,
    settings: Sequence[str] | None,
    pools: Sequence[PoolName],
    wording: Wording,
    fraction: float,
    seed: int,
) -> list[Asked]:
    known = benchmark.settings(split)
    names = [one.name for one in known]
    if unknown := [name for name in settings or () if name not in names]:
        raise DataError(f"{benchmark.root}: has no task {unknown[0]!r} in split {split!r}; it has {', '.join(names)}")
    chosen = [one for one in known if settings is None or one.name in settings]
    if not chosen:
        raise DataError(f"{benchmark.root}: has no queries of split {split!r}")
    with progress("embedding queries", sum(len(benchmark.queries(one, split)) for one in chosen)) as bar:
        queries = [embeddings.queries(one, split, wording, bar) for one in chosen]
    local = {one.name: benchmark.pool(one, split) for one in chosen}
    with progress("embedding candidates", sum(map(len, local.values()))) as bar:
        stores = {name: embeddings.candidates(pool, bar) for name, pool in local.items()}
    everything = _everything(embeddings, benchmark, split, list(stores.values())) if "global" in pools else None
    asked = []
    for one, vectors in zip(chosen, queries, strict=True):
        places: dict[str, VectorStore | VectorView] = {"local": stores[one.name]}
        if everything is not None:
            places["global"] = everything
        own_Q = own_rows(benchmark, vectors.qids, benchmark.pool(one, split))
        asked.append(Asked(one.name, vectors, drawn(vectors.qids, fraction, seed), places, own_Q))
    return asked


def _everything(embeddings: Embeddings, benchmark: Benchmark, split: str, parts: list[VectorStore]) -> VectorView:
    """The global pool of a split, after embedding what no local pool has."""
    pool = benchmark.global_pool(split)
    missing = embeddings.missing(pool, parts)
    if missing:
        with progress("embedding further candidates", len(missing)) as bar:
            parts = [*parts, embeddings.some(pool, missing, bar)]
    return VectorView(parts, pool.ids)
