"""The vectors that an evaluation needs, on disk: one store for the queries of a setting, one for each pool file.

    <work_dir>/vectors/<model>/queries/<setting>-<split>-<wording>-<data>/      split "train" for mining
    <work_dir>/vectors/<model>/candidates/<pool file>-<data>/
    <work_dir>/vectors/<model>/searches/<search>/                                    see `umr.store.saved`

`<model>` and `<data>` are short hashes, so that evaluations of other models or of changed data do not meet, and another
evaluation of the same model reuses what is there. A candidate of the global pool that a local pool has as well is taken
from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from umr.bulk.staff import Staff
from umr.data.benchmark import Benchmark, Pool, Queries
from umr.data.mbeir import Setting
from umr.evaluation.wording import Wording, canonical, instruction_of
from umr.items import Item, Side
from umr.progress import Bar
from umr.protocols import Encoder
from umr.store import VectorStore, embed_into, locate
from umr.store.embedding import SHARD_SIZE, Fetch
from umr.store.source import data_label, short_hash


@dataclass(frozen=True)
class QueryVectors:
    """Queries of one setting: ids, modality looked for and instruction, in the order of the store's rows."""

    store: VectorStore
    qids: tuple[str, ...]
    targets: tuple[str, ...]
    instructions: tuple[str | None, ...]


class Embeddings:
    """Makes and finds the vectors of one model.

    Args:
        encoder: the model.
        benchmark: where items come from.
        work_dir: folder for the stores.
        staff: workers that embed in place of `encoder` where there is much to do.

    Attributes:
        folder: where those of this model are.
    """

    def __init__(self, encoder: Encoder, benchmark: Benchmark, work_dir: Path, staff: Staff | None = None) -> None:
        self._encoder, self._benchmark, self._staff = encoder, benchmark, staff
        self.folder = Path(work_dir) / "vectors" / short_hash(encoder.fingerprint)

    def queries(self, setting: Setting, split: str, wording: Wording, bar: Bar) -> QueryVectors:
        """Embed the queries of a setting, each with the first of its instructions or one drawn by its id."""
        queries = self._benchmark.queries(setting, split)
        return self._queries(f"{setting.name}-{split}", queries, np.arange(len(queries)), wording, bar)

    def train_queries(self, name: str, queries: Queries, places_Q: npt.NDArray[np.int64], wording: Wording, bar: Bar) -> QueryVectors:
        """Embed some lines of a training file, whose qids must differ.

        Args:
            name: for the store's folder.
            queries: the file.
            places_Q: which lines.
            wording: as of `queries`.
            bar: advanced by the number of queries.
        """
        return self._queries(f"{name}-train", queries, places_Q, wording, bar, hashlib.blake2b(places_Q.tobytes()).hexdigest())

    def _queries(
        self, name: str, queries: Queries, places_Q: npt.NDArray[np.int64], wording: Wording, bar: Bar, *more: str
    ) -> QueryVectors:
        asked = (queries[int(place)] for place in places_Q)
        known = [(query.qid, query.target_modality, instruction_of(query, wording)) for query in asked]
        qids, targets, instructions = zip(*known, strict=True)
        fetch = partial(_query_items, queries, places_Q)
        source = data_label(queries.paths, self._benchmark.root, len(qids), fetch, repr(instructions), *more)
        store = self._fill(f"queries/{name}-{canonical(wording)}", source, qids, fetch, "query", bar, instructions)
        return QueryVectors(store, qids, targets, instructions)

    def candidates(self, pool: Pool, bar: Bar) -> VectorStore:
        """Embed a pool."""
        fetch = partial(_pool_items, pool)
        source = data_label([pool.path], self._benchmark.root, len(pool), fetch)
        return self._fill(f"candidates/{pool.path.stem}", source, pool.ids, fetch, "candidate", bar)

    def missing(self, pool: Pool, stores: Sequence[VectorStore]) -> list[str]:
        """Ids of the pool that no store has."""
        return [pool.ids[int(row)] for row in np.flatnonzero(locate(stores, pool.ids) < 0)]

    def some(self, pool: Pool, dids: Sequence[str], bar: Bar) -> VectorStore:
        """Embed some of a pool, in the order of `dids`."""
        fetch = partial(_items_by_id, pool, dids)
        source = data_label([pool.path], self._benchmark.root, len(dids), fetch, "\n".join(dids))
        return self._fill(f"candidates/{pool.path.stem}-rest", source, dids, fetch, "candidate", bar)

    def _fill(
        self,
        name: str,
        source: str,
        ids: Sequence[str],
        fetch: Fetch,
        side: Side,
        bar: Bar,
        instructions: Sequence[str | None] | None = None,
    ) -> VectorStore:
        store = VectorStore.create_or_resume(
            self.folder / f"{name}-{source[:8]}",
            fingerprint=self._encoder.fingerprint,
            dimension=self._encoder.dimension,
            side=side,
            source=source,
        )
        staff = self._staff
        done = staff is not None and staff.embed(store, self._encoder, ids, fetch, side, instructions, SHARD_SIZE, bar)
        embed_into(store, self._encoder, ids, fetch, side, instructions, SHARD_SIZE, bar=None if done else bar)
        return store


def _query_items(queries: Queries, places_Q: npt.NDArray[np.int64], start: int, stop: int) -> list[Item]:
    return [queries[int(place)].item for place in places_Q[start:stop]]


def _pool_items(pool: Pool, start: int, stop: int) -> list[Item]:
    return list(pool.items(start, stop))


def _items_by_id(pool: Pool, dids: Sequence[str], start: int, stop: int) -> list[Item]:
    return [pool.item(did) for did in dids[start:stop]]
