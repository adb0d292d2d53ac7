"""Having a reranker score ranked lists, into a score table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.items import Item
from umr.mining.scores import ScoredList
from umr.mining.scores_writer import Origin, ScoreWriter
from umr.progress import Bar
from umr.rendering.pairs import Pair

if TYPE_CHECKING:
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
    table: ScoreWriter, reranker: PairScorer, run: Run, place: Place, origin: Origin, bar: Bar, also: Sequence[ScoreWriter] = ()
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
    """
    width = min(table.depth, run.rows_QK.shape[1])
    if all(table.has(qid, place.setting, place.pool, origin) for qid in run.qids):
        bar.advance(width * len(run.qids))
        return
    with table.writing():
        for start in range(0, len(run.qids), LISTS_A_SHARD):
            rows = range(start, min(start + LISTS_A_SHARD, len(run.qids)))
            todo = [row for row in rows if not table.has(run.qids[row], place.setting, place.pool, origin)]
            bar.advance(width * (len(rows) - len(todo)))
            if not todo:
                continue
            chunk = _Chunk([run.qids[row] for row in todo], _dids(run, todo, width))
            yes = _judge(chunk, [table, *also], reranker, place, origin, bar)
            lists = [
                ScoredList(qid, place.setting, place.pool, dids, cosine_K, np.array([yes[qid][did] for did in dids], np.float32))
                for qid, dids, cosine_K in zip(chunk.qids, chunk.dids, run.scores_QK[todo, :width], strict=True)
            ]
            table.append(lists, [len(set(place.query(one.qid).positives).intersection(one.dids)) for one in lists], origin)


@dataclass(frozen=True)
class _Chunk:
    """Lists that become one shard."""

    qids: list[str]
    dids: list[tuple[str, ...]]


def _dids(run: Run, places: list[int], width: int) -> list[tuple[str, ...]]:
    flat = run.dids.take(pa.array(run.rows_QK[places, :width].ravel())).to_pylist()
    return [tuple(flat[row * width : (row + 1) * width]) for row in range(len(places))]


def _judge(
    chunk: _Chunk, tables: Sequence[ScoreWriter], reranker: PairScorer, place: Place, origin: Origin, bar: Bar
) -> dict[str, dict[str, float]]:
    """P(Yes) by qid and did for everything in a chunk."""
    yes: dict[str, dict[str, float]] = {}
    todo: list[tuple[str, str]] = []
    for qid, dids in zip(chunk.qids, chunk.dids, strict=True):
        yes[qid] = {did: value for table in tables for did, value in table.known(qid, place.setting, origin.revision).items()}
        todo += [(qid, did) for did in dids if did not in yes[qid]]
    bar.advance(sum(map(len, chunk.dids)) - len(todo))
    for first in range(0, len(todo), PAIRS_PER_CALL):
        some = todo[first : first + PAIRS_PER_CALL]
        asked = {qid: place.query(qid) for qid, _ in some}
        pairs = [Pair(asked[qid].item, asked[qid].instruction, place.candidate(did)) for qid, did in some]
        for (qid, did), value in zip(some, reranker.score_pairs(pairs).tolist(), strict=True):
            yes[qid][did] = value
        bar.advance(len(some))
    return yes
