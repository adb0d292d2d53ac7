"""One search through its stages: recall, merge, rerank, group, cut out the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from umr.items import Item
from umr.search.asking import Question
from umr.search.fusion import reciprocal_ranks, shifted
from umr.search.grouping import at_most, group_of
from umr.search.hits import Hit, Results, Stage
from umr.search.options import MODALITIES, MOST, Options
from umr.search.reopening import reopen
from umr.search.reranking import Reranked, rerank
from umr.search.rows import Row
from umr.search.table import Near, Table

Vector = npt.NDArray[np.float32]
DEEPER = 4
"""How much deeper a grouped search looks at first, and each time it has found too few groups."""


@dataclass(frozen=True)
class Placed:
    """A row in the order: what decided its place, and what every stage said of it."""

    id: str
    score: float
    stage: Stage
    scores: dict[str, float]


@dataclass
class Search:
    """One search, run once.

    Args:
        table: where rows are.
        options: how to search.
        question: what for; None for a search by a vector alone.
        vector: gives the unit vector to search with, (D,); not called in mode words.
        media: the absolute path of a row's media.
        asked: modality of the query, for the calibration.
        leave_out: id of a row that is no result, though it would be found; a condition on ids would cost a look at every row.
    """

    table: Table
    options: Options
    question: Question | None
    vector: Callable[[], Vector]
    media: Callable[[Row], Path | None]
    asked: str
    leave_out: str | None = None
    _rows: dict[str, Row] = field(default_factory=dict)
    _vectors: dict[str, npt.NDArray[np.float16]] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _seconds: dict[str, float] = field(default_factory=dict)
    _query_D: Vector | None = None

    def run(self) -> Results:
        """The page of hits. Fewer than k where that is all, or where rows went while the search ran."""
        options = self.options
        if options.mode != "words":
            with self._timed("embedding"):
                self._query_D = self.vector()
        order = self._deep_enough() if options.group_by else self._recall(max(options.wanted, options.first))
        reranked = Reranked()
        # A page beyond what is reranked is in recall's order, whatever the reranker would say.
        if options.first and (options.offset < options.first or options.group_by):
            order, reranked = self._rerank(order)
        if options.group_by:
            order = self._grouped(order)
        return self._page(order, reranked)

    # --- recall

    def _recall(self, depth: int) -> list[Placed]:
        options = self.options
        if options.mode == "words":
            return [Placed(near.id, near.score, "words", {"words": near.score}) for near in self._words(depth)]
        if options.mode == "vector":
            return self._near(depth)
        near, words = self._near(options.list_depth), self._words(options.list_depth)
        scores: dict[str, dict[str, float]] = {one.id: dict(one.scores) for one in near}
        for one in words:
            scores.setdefault(one.id, {})["words"] = one.score
        lists = {"vector": [Near(one.id, one.score) for one in near], "words": words}
        merged = reciprocal_ranks(lists, {"words": 1.0 if options.words_weight is None else options.words_weight})
        return [Placed(one.id, one.score, "fused", {**scores[one.id], "fused": one.score}) for one in merged]

    def _near(self, depth: int) -> list[Placed]:
        """By cosine, or by calibrated cosine, which is exact because each modality is searched as deep as the whole."""
        assert self._query_D is not None
        options, query_1D = self.options, self._query_D[None]
        with self._timed("vectors"):
            if options.calibration is None:
                (found,) = self.table.nearest(query_1D, depth + (self.leave_out is not None), options.where, options.modalities)
                others = [near for near in found if near.id != self.leave_out][:depth]
                return [Placed(near.id, near.score, "cosine", {"cosine": near.score}) for near in others]
            lists = {kind: self.table.nearest(query_1D, depth, options.where, [kind])[0] for kind in options.modalities or MODALITIES}
        offsets: dict[str, float] = dict(options.calibration.offsets.get(self.asked, {}))  # type: ignore[call-overload]
        cosines = {near.id: near.score for found in lists.values() for near in found}
        merged = shifted(lists, offsets)[:depth]
        return [Placed(one.id, one.score, "calibrated", {"cosine": cosines[one.id], "calibrated": one.score}) for one in merged]

    def _words(self, depth: int) -> list[Near]:
        assert self.question is not None
        with self._timed("words"):
            return self.table.words(self.question.words, depth, self.options.where, self.options.modalities)

    # --- groups

    def _deep_enough(self) -> list[Placed]:
        """Recall until there are enough groups, or no more rows; the merged lists of a hybrid search are what they are."""
        depth = min(MOST, max(DEEPER * self.options.wanted, self.options.first))
        while True:
            order = self._recall(depth)
            enough = len(self._grouped(order)) >= self.options.wanted
            if enough or self.options.mode == "hybrid" or len(order) < depth or depth >= MOST:
                return order
            depth = min(MOST, DEEPER * depth)

    def _grouped(self, order: Sequence[Placed]) -> list[Placed]:
        name = self.options.group_by
        assert name is not None
        self._fetch([one.id for one in order])
        here = [one for one in order if one.id in self._rows]
        return list(at_most(here, self.options.per_group or 1, lambda one: group_of(self._rows[one.id], name)))

    # --- reranking

    def _rerank(self, order: list[Placed]) -> tuple[list[Placed], Reranked]:
        options, question = self.options, self.question
        assert options.reranker is not None and question is not None
        first, rest = order[: options.first], order[options.first :]
        self._fetch([one.id for one in first], vectors=options.mode == "hybrid" and options.yes_weight is not None)
        first = [one for one in first if one.id in self._rows]
        with self._timed("reranking"):
            said = rerank(
                options.reranker,
                question.wanted,
                question.instruction or None,
                [one.id for one in first],
                self._item,
                options.rerank_seconds,
            )
        if options.yes_weight is not None:
            first = self._with_cosines(first)
        judged = [self._judged(one, said.yes[one.id]) for one in first if one.id in said.yes]
        # Stable: equal scores stay in the order of recall, as in umr.evaluation.rerank.
        judged.sort(key=lambda one: -one.score)
        return [*judged, *(one for one in first if one.id not in said.yes), *rest], said

    def _judged(self, one: Placed, yes: float) -> Placed:
        weight = self.options.yes_weight
        score = yes if weight is None else one.scores.get("calibrated", one.scores["cosine"]) + weight * yes
        return Placed(one.id, score, "rerank", {**one.scores, "rerank": yes})

    def _item(self, id: str) -> Item:
        row = self._rows[id]
        return reopen(row, self.media(row))

    # --- the page

    def _page(self, order: Sequence[Placed], reranked: Reranked) -> Results:
        options = self.options
        page = list(order[options.offset : options.wanted])
        if options.mode == "hybrid":
            page = self._with_cosines(page)
        else:
            self._fetch([one.id for one in page])
        hits = []
        for rank, one in enumerate(page, options.offset + 1):
            if (row := self._rows.get(one.id)) is not None:
                hits.append(Hit(row, rank, one.score, one.stage, one.scores, self.media(row)))
        return Results(tuple(hits), self._explained(reranked), len(reranked.yes), tuple(reranked.notes), dict(self._seconds))

    def _explained(self, reranked: Reranked) -> str:
        options = self.options
        base = "cosine" if options.calibration is None else "cosine with the offset of the modality"
        said = {"vector": base, "words": "BM25", "hybrid": f"reciprocal ranks of {base} and BM25"}[options.mode]
        if reranked.yes:
            by = "P(Yes)" if options.yes_weight is None else f"{base} + {options.yes_weight:g} P(Yes)"
            said = f"the first {len(reranked.yes)} by {by}, then by {said}"
        return said if options.group_by is None else f"{said}; at most {options.per_group or 1} of each {options.group_by}"

    def _with_cosines(self, some: Sequence[Placed]) -> list[Placed]:
        """What full text alone has found gets its cosine, too. Those whose rows are gone go."""
        self._fetch([one.id for one in some], vectors=any("cosine" not in one.scores for one in some))
        here = [one for one in some if one.id in (self._rows if "cosine" in one.scores else self._vectors)]
        return [one if "cosine" in one.scores else self._with_cosine(one) for one in here]

    def _with_cosine(self, one: Placed) -> Placed:
        row, calibration = self._rows[one.id], self.options.calibration
        assert self._query_D is not None
        scores = {"cosine": float(self._vectors[one.id].astype(np.float32) @ self._query_D)}
        if calibration is not None:
            offsets: dict[str, float] = dict(calibration.offsets.get(self.asked, {}))  # type: ignore[call-overload]
            scores["calibrated"] = scores["cosine"] + offsets.get(row.modality, 0.0)
        return replace(one, scores={**scores, **one.scores})

    def _fetch(self, ids: Sequence[str], vectors: bool = False) -> None:
        """Read the rows that were not read yet; with `vectors` also those whose vectors were not."""
        held = self._vectors if vectors else self._rows
        lacking = [id for id in ids if id not in held and id not in self._gone]
        if not lacking:
            return
        with self._timed("rows"):
            for row in self.table.rows(lacking, vectors):
                if row.vector_D is not None:
                    self._vectors[row.id] = row.vector_D
                self._rows[row.id] = replace(row, vector_D=None)
        self._gone |= {id for id in lacking if id not in held}

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.monotonic() - begun

    @property
    def gone(self) -> bool:
        """Whether a row that was found was no longer there when it was read."""
        return bool(self._gone)
