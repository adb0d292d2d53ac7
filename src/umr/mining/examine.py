"""One block of queries: what was found for them, and what became of every candidate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.data.mbeir import Pool
from umr.mining.content import Checks, Digests
from umr.mining.fill import PairScorer
from umr.mining.filters import Codes, Lists, choose, judge, preference
from umr.mining.queries import Group, hashes
from umr.mining.settings import MineSettings
from umr.mining.sources import Source
from umr.mining.tables import PoolColumns, audit_of, negatives_of


class Block(NamedTuple):
    """Queries `start` to `stop` of a group."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class Examined:
    """The outcome for Q queries.

    Attributes:
        group: the setting.
        start: first query.
        lists: what was found.
        codes_QW: the reason of each candidate (`umr.mining.filters`).
        positive_Q: best score of a positive, nan where none is known.
        yes_QW: what the reranker said, nan where it was not asked.
    """

    group: Group
    start: int
    lists: Lists
    codes_QW: Codes
    positive_Q: npt.NDArray[np.float32]
    yes_QW: npt.NDArray[np.float32]

    def negatives(self, columns: PoolColumns) -> pa.Table:
        """Rows of `negatives.parquet`."""
        return negatives_of(self.group, self.start, self.lists, self.codes_QW, self.positive_Q, columns)

    def audit(self, columns: PoolColumns) -> pa.Table:
        """Rows of `audit.parquet`."""
        return audit_of(self.group, self.start, self.lists, self.codes_QW, self.positive_Q, self.yes_QW, columns)


def examine(
    block: Block, group: Group, source: Source, settings: MineSettings, pool: Pool, digests: Digests, reranker: PairScorer | None
) -> Examined:
    """Find, filter and choose for one block. The same block always gives the same result.

    Args:
        block: which queries.
        group: that they belong to.
        source: of the rankings.
        settings: which filters, and how many negatives.
        pool: the training pool.
        digests: of its candidates' contents, kept from block to block.
        reranker: belongs to `settings.max_yes`.
    """
    start, stop = block.start, block.stop
    positives, judged = group.positives.part(start, stop), group.judged.part(start, stop)
    lists = source.lists(block.group, start, stop)
    positive_Q = source.positive_scores(block.group, start, stop, lists, (positives, judged))
    wordings = source.instructions(block.group, start, stop) if reranker is not None else []
    checks = Checks(group, start, lists.rows_QW, (positives, judged), pool, digests, wordings, reranker, settings.max_yes)
    order_QW = preference(lists.rows_QW, settings.select, hashes(group.qids[start:stop], settings.seed))
    codes_QW = choose(judge(lists, positives, judged, positive_Q, settings), order_QW, settings.negatives, checks)
    return Examined(group, start, lists, codes_QW, positive_Q, checks.yes_QW)
