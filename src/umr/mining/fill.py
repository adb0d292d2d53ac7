"""Having a reranker score ranked lists, into a score table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.items import Item
from umr.mining.panel import Key, Task, scored
from umr.mining.scores import ScoredList
from umr.mining.scores_writer import Origin, ScoreWriter
from umr.progress import Bar
from umr.rendering.pairs import Pair

if TYPE_CHECKING:
    from umr.bulk.job import Team
    from umr.evaluation.result import Run

LISTS_A_SHARD = 256
"""Lists scored between two writes: at 50 candidates each, 12,800 pairs at most are lost when the process is killed."""
PAIRS_PER_CALL = 1024  # enough for the reranker to sort by length, few enough to show progress


class PairScorer(Protocol):
    """What is asked of a reranker; `umr.models.reranker.Reranker` is one."""

    @property
    def fingerprint(self) -> str:
        """Hash over everything that a score depends on."""
        ...

    def score_pairs(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """P(Yes) of each pair: float32, shape (N,)."""
        ...


@dataclass(frozen=True)
class Asked:
    """A query as the reranker sees it, and its right answers, which are only counted."""

    item: Item
    instruction: str | None
    positives: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """One search whose lists are scored.

    Attributes:
        setting: such as `"mscoco_task0"`.
        pool: `"local"` or `"global"`.
        query: queries by qid.
        candidate: candidates by did.
    """

    setting: str
    pool: str
    query: Callable[[str], Asked]
    candidate: Callable[[str], Item]


def fill(
    table: ScoreWriter,
    reranker: PairScorer,
    run: Run,
    place: Place,
    origin: Origin,
    bar: Bar,
    also: Sequence[ScoreWriter] = (),
    team: Team | None = None,
) -> None:
    """Score the first candidates of every query of a run, as many as the table wants, where the table has no such list yet.

    A pair that the reranker has scored for another list is taken from there. The reranker is called with the same groups of
    pairs whether the work was interrupted or not, so the table ends with the same values.

    Args:
        table: where lists go, and come from.
        reranker: gives P(Yes).
        run: rankings of the retriever, best first.
        place: what was searched.
        origin: of the scores.
        bar: advanced by the number of pairs done, those that were known already included.
        also: further tables of the same data to take known pairs from.
        team: workers that score in place of `reranker`, to the same values: each group of pairs is one task.
    """
    width = min(table.depth, run.rows_QK.shape[1])
    if all(table.has(qid, place.setting, place.pool, origin) for qid in run.qids):
        bar.advance(width * len(run.qids))
        return
    with table.writing():
        filling = _Filling(table, run, place, origin, bar, width, [table, *also])
        for key, scores_P in scored(filling.tasks(), reranker, team):
            filling.take(key, scores_P)
        filling.finish()


@dataclass
class _Chunk:
    """Lists that become one shard.

    Attributes:
        rows: of the run.
        dids: candidates of each.
        yes: what is known of them so far, by qid and did.
        groups: ids of the pairs that are asked about in one call.
        waiting: groups without an answer.
    """

    rows: list[int]
    dids: list[tuple[str, ...]]
    yes: dict[str, dict[str, float]]
    groups: list[list[tuple[str, str]]]
    waiting: int


@dataclass
class _Filling:
    """A run on its way into a table: shards are begun and written in order, whatever the order of answers."""

    table: ScoreWriter
    run: Run
    place: Place
    origin: Origin
    bar: Bar
    width: int
    known_in: Sequence[ScoreWriter]
    chunks: dict[int, _Chunk] = field(default_factory=dict)
    written: int = 0

    def tasks(self) -> Iterator[Task]:
        """What is to be scored; a shard is begun when its first task is asked for."""
        number = 0
        for start in range(0, len(self.run.qids), LISTS_A_SHARD):
            rows = range(start, min(start + LISTS_A_SHARD, len(self.run.qids)))
            todo = [row for row in rows if not self.table.has(self.run.qids[row], self.place.setting, self.place.pool, self.origin)]
            self.bar.advance(self.width * (len(rows) - len(todo)))
            if todo:
                chunk = self.chunks[number] = self._begin(todo)
                for place, group in enumerate(chunk.groups):
                    yield (number, place), _pairs(group, self.place)
                number += 1

    def take(self, key: Key, scores_P: npt.NDArray[np.float32]) -> None:
        """Take an answer, and write what is complete."""
        chunk = self.chunks[key[0]]
        for (qid, did), value in zip(chunk.groups[key[1]], scores_P.tolist(), strict=True):
            chunk.yes[qid][did] = value
        chunk.waiting -= 1
        self.bar.advance(len(scores_P))
        self.finish()

    def finish(self) -> None:
        """Write the shards that are complete and have those before them written."""
        while self.written in self.chunks and not self.chunks[self.written].waiting:
            self._write(self.chunks.pop(self.written))
            self.written += 1

    def _begin(self, rows: list[int]) -> _Chunk:
        flat = self.run.dids.take(pa.array(self.run.rows_QK[rows, : self.width].ravel())).to_pylist()
        dids = [tuple(flat[start : start + self.width]) for start in range(0, len(flat), self.width)]
        yes: dict[str, dict[str, float]] = {}
        todo: list[tuple[str, str]] = []
        for row, wanted in zip(rows, dids, strict=True):
            qid = self.run.qids[row]
            known = (table.known(qid, self.place.setting, self.origin.revision) for table in self.known_in)
            yes[qid] = {did: value for one in known for did, value in one.items()}
            todo += [(qid, did) for did in wanted if did not in yes[qid]]
        self.bar.advance(len(flat) - len(todo))
        groups = [todo[first : first + PAIRS_PER_CALL] for first in range(0, len(todo), PAIRS_PER_CALL)]
        return _Chunk(rows, dids, yes, groups, len(groups))

    def _write(self, chunk: _Chunk) -> None:
        qids = [self.run.qids[row] for row in chunk.rows]
        cosines = self.run.scores_QK[chunk.rows, : self.width]
        lists = [
            ScoredList(
                qid, self.place.setting, self.place.pool, dids, cosine_K, np.array([chunk.yes[qid][did] for did in dids], np.float32)
            )
            for qid, dids, cosine_K in zip(qids, chunk.dids, cosines, strict=True)
        ]
        right = [len(set(self.place.query(one.qid).positives).intersection(one.dids)) for one in lists]
        self.table.append(lists, right, self.origin)


def _pairs(ids: Sequence[tuple[str, str]], place: Place) -> list[Pair]:
    asked = {qid: place.query(qid) for qid, _ in ids}
    return [Pair(asked[qid].item, asked[qid].instruction, place.candidate(did)) for qid, did in ids]
