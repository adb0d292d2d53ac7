"""Training queries as mining sees them: each qid once, grouped by setting, with everything that is right for it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from umr.data.benchmark import Benchmark, Pool, Queries
from umr.data.fingerprint import fingerprint
from umr.data.mbeir import Setting
from umr.data.mbeir_queries import MBeirQuery
from umr.data.mbeir_records import TASKS, dataset_of
from umr.data.qrels import read_qrels
from umr.errors import DataError
from umr.progress import track

DATASETS = ("visualnews", "fashion200k", "webqa", "edis", "nights", "oven", "infoseek", "fashioniq", "cirr", "mscoco")
"""M-BEIR's names by dataset id, for trees that have the union file alone."""
SHARED = {"oven": (5, 6), "infoseek": (5, 6)}
"""Data sets of M-BEIR whose candidates are one local pool: their dataset ids."""
REPORT_FROM = 100_000


@dataclass(frozen=True)
class Ragged:
    """A list of rows of the training pool for each of Q queries: `rows[offsets[q]:offsets[q + 1]]`."""

    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[Sequence[str]], pool: Pool) -> Ragged:
        """Rows of ids; an id that the pool does not have is left out, since no search can return it."""
        rows = pool.find([did for dids in lists for did in dids])
        here = rows >= 0
        owner = np.repeat(np.arange(len(lists)), [len(dids) for dids in lists])
        counts_Q = np.bincount(owner[here], minlength=len(lists))
        return cls(rows[here], np.concatenate([[0], np.cumsum(counts_Q)]).astype(np.int64))

    def __getitem__(self, query: int) -> npt.NDArray[np.int64]:
        return self.rows[self.offsets[query] : self.offsets[query + 1]]

    def part(self, start: int, stop: int) -> Ragged:
        """The lists of queries `start` to `stop`."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.rows[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, queries: npt.NDArray[np.int64]) -> Ragged:
        """The lists of some queries."""
        counts = np.diff(self.offsets)[queries]
        rows = np.concatenate([self[int(query)] for query in queries]) if len(queries) else self.rows[:0]
        return Ragged(rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """The query that each of `rows` belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class Group:
    """The queries of one setting.

    Attributes:
        setting: such as `"mscoco_task0"`; queries of a file that mixes tasks are grouped by their own task.
        asking: modality of the queries.
        target: modality looked for.
        datasets: dataset ids whose candidates are the local pool; `None` stands for ids that are not written `<dataset>:<number>`.
            Of a benchmark with one pool for everything it is `None` as a whole.
        queries: the file.
        places_Q: line of each query in `queries`, its first where it has several.
        qids: Q ids.
        positives: rows that any training line of the query calls right.
        judged: rows that a file of judgements calls right.
    """

    setting: str
    asking: str
    target: str
    datasets: frozenset[int | None] | None
    queries: Queries
    places_Q: npt.NDArray[np.int64]
    qids: tuple[str, ...]
    positives: Ragged
    judged: Ragged

    def query(self, index: int) -> MBeirQuery:
        """Query `index` of the group."""
        return self.queries[int(self.places_Q[index])]

    def only(self, qids: Container[str]) -> Group:
        """The group without queries that are not in `qids`."""
        stay = np.array([place for place, qid in enumerate(self.qids) if qid in qids], np.int64)
        return replace(
            self,
            places_Q=self.places_Q[stay],
            qids=tuple(self.qids[place] for place in stay),
            positives=self.positives.take(stay),
            judged=self.judged.take(stay),
        )


def training_groups(benchmark: Benchmark, settings: Sequence[str] | None = None, fraction: float = 1.0, seed: int = 42) -> list[Group]:
    """Read all training queries and group them.

    Every line of every training file counts for what is right, also those of files that `settings` leaves out.

    Args:
        benchmark: the tree. Its files by setting are read, or the union file where there are no others.
        settings: names of files, such as `"cirr_task7"` or `"oven"`, or of single tasks of a mixed file (`"oven_task6"`); all by default.
        fraction: share of each setting's queries, drawn by a hash of qid and `seed`; at least one query stays.
        seed: of that draw.

    Raises:
        DataError: unusable files, or a setting that the tree does not have.
    """
    found = _Found(benchmark, None if settings is None else frozenset(settings))
    for name, queries in _files(benchmark):
        found.read(name, queries)
    if settings is not None and (unknown := [name for name in settings if name not in found.known]):
        raise DataError(f"{benchmark.root}: has no training setting {unknown[0]!r}; it has {', '.join(sorted(found.known))}")
    found.read_judgements()
    groups = [found.group(key, fraction, seed) for key in found.members]
    if not groups:
        raise DataError(f"{benchmark.root}: has no usable training queries")
    return groups


def drawn(qids: Sequence[str], fraction: float, seed: int) -> npt.NDArray[np.int64]:
    """Positions of the `fraction` of `qids` with the lowest hash of seed and qid, ascending; the same on every machine."""
    if fraction >= 1:
        return np.arange(len(qids))
    count = max(1, round(fraction * len(qids)))
    return np.sort(np.argsort(hashes(qids, seed), kind="stable")[:count])


def hashes(qids: Iterable[str], seed: int) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each qid and the seed."""
    digests = b"".join(hashlib.blake2b(f"{seed}\0{qid}".encode(), digest_size=8).digest() for qid in qids)
    return np.frombuffer(digests, np.uint64)


def training_data(benchmark: Benchmark) -> str:
    """Fingerprint of everything that mining reads of a benchmark."""
    paths = {path for _, queries in _files(benchmark) for path in queries.paths}
    paths |= {benchmark.global_pool_path("train"), benchmark.instructions_path, *benchmark.train_judgement_paths()}
    return fingerprint((path for path in paths if path.is_file()), benchmark.root)


def _files(benchmark: Benchmark) -> Iterator[tuple[Setting | None, Queries]]:
    """Training files by setting, or the union file, which belongs to none."""
    settings = benchmark.settings("train")
    for setting in settings:
        yield setting, benchmark.train_queries([setting])
    if not settings:
        yield None, benchmark.train_queries()


Key = tuple[str, int]
"""Dataset and task."""


@dataclass
class _Found:
    """What has been read so far: members of each group, and what is right by qid."""

    benchmark: Benchmark
    wanted: frozenset[str] | None
    known: set[str] = field(default_factory=set)
    members: dict[Key, dict[str, int]] = field(default_factory=dict)
    files: dict[Key, Queries] = field(default_factory=dict)
    placed: set[str] = field(default_factory=set)
    right: dict[str, tuple[str, ...]] = field(default_factory=dict)
    judged: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def read(self, setting: Setting | None, queries: Queries) -> None:
        """Take in one file."""
        places: Iterable[int] = range(len(queries))
        if len(queries) >= REPORT_FROM:
            places = track(places, "reading training queries", unit="queries")
        for place in places:
            query = queries[place]
            key = (_dataset_name(query.qid) if setting is None else setting.dataset, query.task_id)
            before = self.right.get(query.qid, ())
            if before != query.positives:
                self.right[query.qid] = tuple(dict.fromkeys((*before, *query.positives)))
            names = {Setting(*key).name} | ({setting.name} if setting else {key[0]})
            self.known |= names
            if query.qid not in self.placed and (self.wanted is None or names & self.wanted):
                self.placed.add(query.qid)
                self.members.setdefault(key, {})[query.qid] = place
                if self.files.setdefault(key, queries) is not queries:
                    raise DataError(f"{queries.paths[0]}: {Setting(*key).name} has a file of its own, too; give each task one file")

    def read_judgements(self) -> None:
        """Take in every file of training judgements that there is."""
        for path in self.benchmark.train_judgement_paths():
            for qid, dids in read_qrels(path, self.benchmark.on_error).relevant.items():
                if qid in self.placed:
                    self.judged[qid] += dids

    def group(self, key: Key, fraction: float, seed: int) -> Group:
        """The finished group."""
        dataset, task = key
        everyone = list(self.members[key])
        chosen = drawn(everyone, fraction, seed)
        qids = tuple(everyone[place] for place in chosen)
        pool = self.benchmark.train_pool()
        return Group(
            setting=Setting(dataset, task).name,
            asking=TASKS[task][0],
            target=TASKS[task][1],
            datasets=None if self.benchmark.one_pool else frozenset(SHARED.get(dataset, {dataset_of(qid) for qid in qids})),
            queries=self.files[key],
            places_Q=np.fromiter((self.members[key][qid] for qid in qids), np.int64, len(qids)),
            qids=qids,
            positives=Ragged.of([self.right[qid] for qid in qids], pool),
            judged=Ragged.of([self.judged.get(qid, []) for qid in qids], pool),
        )


def _dataset_name(qid: str) -> str:
    dataset = dataset_of(qid)
    if dataset is None:
        raise DataError(f"query {qid!r}: its id must be <dataset id>:<number> for the union file to be split into settings")
    return DATASETS[dataset] if dataset < len(DATASETS) else f"dataset{dataset}"
