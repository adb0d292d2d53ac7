"""One block of queries: what was found for them, and what became of every candidate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umr.data.benchmark import Pool
from umr.mining.content import Checks, Digests
from umr.mining.fallback import Drawn, draw_randomly
from umr.mining.fill import PairScorer
from umr.mining.filters import KEPT, NONE, Codes, Lists, choose, joined, judge, preference
from umr.mining.modality import FALLBACK, NO_SET, choose_by_quota, choose_from_sets, draw_sets, sets_of
from umr.mining.queries import Group, hashes
from umr.mining.rules import Rules
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
        lists: what was found; with modality-aware settings, followed by what was drawn at random.
        codes_QW: the reason of each candidate (`umr.mining.filters`).
        sets_QW: the set it belongs to (`umr.mining.modality`).
        positive_Q: best score of a positive, nan where none is known.
        yes_QW: what the reranker said, nan where it was not asked.
    """

    group: Group
    start: int
    lists: Lists
    codes_QW: Codes
    sets_QW: Codes
    positive_Q: npt.NDArray[np.float32]
    yes_QW: npt.NDArray[np.float32]

    def followed_by(self, drawn: Drawn) -> Examined:
        """With further candidates behind those that were found."""
        return replace(
            self,
            lists=joined([self.lists, drawn.lists]),
            codes_QW=np.concatenate([self.codes_QW, drawn.codes_QE], axis=1),
            sets_QW=np.concatenate([self.sets_QW, np.where(drawn.codes_QE == NONE, NO_SET, FALLBACK).astype(np.uint8)], axis=1),
            yes_QW=np.concatenate([self.yes_QW, drawn.yes_QE], axis=1),
        )

    def negatives(self, columns: PoolColumns) -> pa.Table:
        """Rows of `negatives.parquet`."""
        return negatives_of(self.group, self.start, self.lists, self.codes_QW, self.positive_Q, columns)

    def audit(self, columns: PoolColumns) -> pa.Table:
        """Rows of `audit.parquet`."""
        return audit_of(self.group, self.start, self.lists, self.codes_QW, self.sets_QW, self.positive_Q, self.yes_QW, columns)


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
    right = group.positives.part(start, stop), group.judged.part(start, stop)
    lists = source.lists(block.group, start, stop)
    positive_Q = source.positive_scores(block.group, start, stop, lists, right)
    wordings = source.instructions(block.group, start, stop) if reranker is not None else []
    checks = Checks(group, start, lists.rows_QW, right, pool, digests, wordings, reranker, settings.max_yes)
    rules, hashes_Q = Rules.of(settings, group.asking, group.target), hashes(group.qids[start:stop], settings.seed)
    modalities_QW, order_QW = source.columns.modalities(lists.rows_QW), preference(lists.rows_QW, settings.select, hashes_Q)
    judged_QW = judge(lists, modalities_QW, *right, positive_Q, rules)
    sets_QW = sets_of(judged_QW, modalities_QW, rules)
    if settings.modality_aware is not None:
        from_c1_Q = draw_sets(hashes_Q, settings.negatives, settings.modality_aware.wrong_modality_share)
        codes_QW = choose_from_sets(judged_QW, sets_QW, order_QW, from_c1_Q, settings.negatives, checks)
    elif settings.quotas is not None:
        codes_QW = choose_by_quota(judged_QW, modalities_QW, order_QW, settings.quotas, checks)
    else:
        codes_QW = choose(judged_QW, order_QW, settings.negatives, checks)
    found = Examined(group, start, lists, codes_QW, sets_QW, positive_Q, checks.yes_QW)
    missing_Q = settings.negatives - (codes_QW == KEPT).sum(axis=1)
    if rules.target is None or not missing_Q.any():
        return found
    rows, scores_of = source.columns.rows_of(rules.target), partial(source.scores, block.group, start)
    own_Q = pool.find(group.qids[start:stop])
    return found.followed_by(draw_randomly(missing_Q, lists, right, own_Q, hashes_Q, rows, positive_Q, rules, scores_of, checks))
