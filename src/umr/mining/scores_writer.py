"""Adding to a score table, a shard at a time."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from umr.errors import StoreError
from umr.mining.scores import ScoredList, read_lists
from umr.mining.scores_files import LISTS, ROWS, Counts, Manifest, ShardReader, write_shard
from umr.store.shard_folder import NAME, one_writer

Where = tuple[int, int, int]
"""Where a list is: shard, first row, rows."""


@dataclass(frozen=True)
class Origin:
    """Who made the scores: fingerprints of the retriever and of the teacher (`revision`), and a label of the teacher to read."""

    retriever: str
    revision: str
    teacher: str


class ScoreWriter:
    """A score table open for adding, made when there is none. Lists that are there are never changed.

    The key of a list is its query, setting and pool, the retriever, and the teacher's revision.

    Args:
        path: the folder.
        data: fingerprint of what is scored.
        split: of the queries.
        instruction: which wording the queries carry.
        depth: candidates a list; fewer only where a pool has fewer.

    Raises:
        StoreError: the folder holds scores of other data, another split, wording or depth; or cannot be written.
    """

    def __init__(self, path: Path, *, data: str, split: str, instruction: str, depth: int) -> None:
        self.path = Path(path)
        wanted = Manifest(data, split, instruction, depth, {})
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / NAME).exists():
                wanted.write(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot hold a score table ({error.strerror}); choose another folder") from error
        self._held = False
        self._load()
        self._manifest.check(wanted, self.path)

    @property
    def depth(self) -> int:
        """Candidates a list."""
        return self._manifest.depth

    def _load(self) -> None:
        self._manifest = Manifest.read(self.path)
        self._shards = ShardReader(self.path, self._manifest.shards)
        self._places: dict[tuple[str, str, str, str, str], Where] = {}
        self._of_query: dict[tuple[str, str, str], list[Where]] = defaultdict(list)
        for row in read_lists(self._shards).to_pylist():
            place = row["shard"], row["start"], row["length"]
            self._note(row["qid"], row["setting"], row["pool"], row["retriever"], row["revision"], place)

    def _note(self, qid: str, setting: str, pool: str, retriever: str, revision: str, place: Where) -> None:
        self._places[qid, setting, pool, retriever, revision] = place
        self._of_query[qid, setting, revision].append(place)

    def has(self, qid: str, setting: str, pool: str, origin: Origin) -> bool:
        """Whether a list is there."""
        return (qid, setting, pool, origin.retriever, origin.revision) in self._places

    def find(self, qid: str, setting: str, pool: str, origin: Origin) -> ScoredList | None:
        """A list that is there, or None."""
        place = self._places.get((qid, setting, pool, origin.retriever, origin.revision))
        if place is None:
            return None
        number, start, length = place
        rows, here = self._shards.rows(number), slice(start, start + length)
        return ScoredList(qid, setting, pool, tuple(rows.dids[here].to_pylist()), rows.cosine_N[here].copy(), rows.yes_N[here].copy())

    def known(self, qid: str, setting: str, revision: str) -> dict[str, float]:
        """P(Yes) by `did` for every candidate of this query that this teacher has scored, in whichever list."""
        found: dict[str, float] = {}
        for number, start, length in self._of_query.get((qid, setting, revision), ()):
            rows = self._shards.rows(number)
            found |= zip(rows.dids[start : start + length].to_pylist(), rows.yes_N[start : start + length].tolist(), strict=True)
        return found

    def append(self, lists: Sequence[ScoredList], positives: Sequence[int], origin: Origin) -> None:
        """Write one shard.

        Args:
            lists: what to add; none of them in the table yet.
            positives: how many right answers each list holds.
            origin: who made the scores.

        Raises:
            StoreError: a list that is there already, scores that are not probabilities (names the query), or a full disk.
        """
        for one in lists:
            _check(one)
            if self.has(one.qid, one.setting, one.pool, origin):
                raise StoreError(f"{self.path}: query {one.qid!r} has its {one.pool} list of {one.setting} already")
        if len({(one.qid, one.setting, one.pool) for one in lists}) < len(lists):
            raise StoreError(f"{self.path}: a query's list is given twice")
        number = len(self._manifest.shards)
        counts = _counted(self._manifest, lists, positives, origin)
        ends = np.cumsum([0] + [len(one.dids) for one in lists])
        try:
            shard = write_shard(self.path, number, _rows(lists, origin), _index(lists, positives, ends[:-1], origin))
            manifest = self._manifest.with_shard(shard, counts)
            manifest.write(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror}); what was there before is still good") from error
        self._manifest = manifest
        self._shards.shards = manifest.shards
        for one, start in zip(lists, ends.tolist(), strict=False):
            self._note(one.qid, one.setting, one.pool, origin.retriever, origin.revision, (number, start, len(one.dids)))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the table for adding; what another process has added since opening is seen. May be nested.

        Raises:
            StoreError: another process holds it.
        """
        if self._held:
            yield
            return
        with one_writer(self.path):
            self._load()
            self._held = True
            try:
                yield
            finally:
                self._held = False


def _check(one: ScoredList) -> None:
    if not len(one.dids) == len(one.cosine_K) == len(one.yes_K) or not one.dids:
        raise StoreError(f"query {one.qid}: {len(one.dids)} candidates, {len(one.cosine_K)} cosines and {len(one.yes_K)} P(Yes)")
    if not np.isfinite(one.cosine_K).all() or not ((one.yes_K >= 0) & (one.yes_K <= 1)).all():
        raise StoreError(f"query {one.qid}: a score is not finite, or P(Yes) is no probability; look at the models")
    if len(set(one.dids)) < len(one.dids):
        raise StoreError(f"query {one.qid}: a candidate is twice in its {one.pool} list")


def _counted(manifest: Manifest, lists: Sequence[ScoredList], positives: Sequence[int], origin: Origin) -> Counts:
    counts = copy.deepcopy(manifest.counts)
    for one, right in zip(lists, positives, strict=True):
        pools = counts.setdefault(origin.revision, {}).setdefault(one.setting, {})
        counted = pools.setdefault(one.pool, {"lists": 0, "with_positive": 0})
        counted["lists"] += 1
        counted["with_positive"] += right > 0
    return counts


def _rows(lists: Sequence[ScoredList], origin: Origin) -> pa.Table:
    lengths = [len(one.dids) for one in lists]
    total = sum(lengths)
    columns = {
        "qid": _each([one.qid for one in lists], lengths),
        "did": pa.array([did for one in lists for did in one.dids], pa.string()),
        "setting": _each([one.setting for one in lists], lengths),
        "pool": _each([one.pool for one in lists], lengths),
        "rank": np.concatenate([np.arange(1, length + 1, dtype=np.int32) for length in lengths]),
        "cosine": np.concatenate([one.cosine_K for one in lists]).astype(np.float32),
        "yes": np.concatenate([one.yes_K for one in lists]).astype(np.float32),
        **{name: _each([getattr(origin, name)], [total]) for name in ("retriever", "teacher", "revision")},
    }
    return pa.table({name: columns[name] for name in ROWS.names}, ROWS)


def _each(names: list[str], lengths: list[int]) -> pa.DictionaryArray:
    """Each name as often as its list is long."""
    encoded = pa.array(names, pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(np.repeat(np.asarray(encoded.indices, np.int32), lengths), encoded.dictionary)


def _index(lists: Sequence[ScoredList], positives: Sequence[int], starts: np.ndarray, origin: Origin) -> pa.Table:
    columns = {
        **{name: [getattr(one, name) for one in lists] for name in ("qid", "setting", "pool")},
        **{name: [getattr(origin, name)] * len(lists) for name in ("retriever", "teacher", "revision")},
        "start": starts.astype(np.int32),
        "length": [len(one.dids) for one in lists],
        "positives": list(positives),
    }
    return pa.table({name: columns[name] for name in LISTS.names}, LISTS)
