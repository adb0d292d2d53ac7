"""The finished system: what the last model recalls, the first results in the order of cosine and reranker together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umr.data.mbeir import MBeir
from umr.demo.chain import LAST, Chain
from umr.evaluation.embeddings import Embeddings
from umr.evaluation.rerank import fuse
from umr.evaluation.weights import Weights
from umr.items import Item
from umr.models.embedder import Embedder
from umr.models.reranker import Reranker
from umr.progress import progress, quiet
from umr.protocols import query_text_of
from umr.store import exact_topk


@dataclass(frozen=True)
class Result:
    """One result of a search.

    Attributes:
        item: what was found.
        score: cosine + weight * P(Yes).
        recalled: its rank by cosine alone, from 1.
        right: whether it is a right answer.
    """

    item: Item
    score: float
    recalled: int
    right: bool


@dataclass(frozen=True)
class Answer:
    """A query with its results, best first.

    Attributes:
        setting: such as `"scenes_task0"`.
        task: modalities of query and candidates, such as `"text -> image"`.
        query: the item asked with.
        instruction: what is asked for.
        results: those that were reranked.
    """

    setting: str
    task: str
    query: Item
    instruction: str
    results: tuple[Result, ...]


class Search:
    """Answers queries of a benchmark's settings from their local pools, as the last stage of the demo measures it.

    Args:
        chain: the finished pipeline.

    Attributes:
        embedder: the last model.
        model: its folder.
        tree: the benchmark.
        split: whose queries are answered.
    """

    def __init__(self, chain: Chain) -> None:
        config: dict[str, Any] = chain.config(LAST)
        self.model = Path(config["model"])
        self.embedder = Embedder.load(self.model)
        self._reranker = Reranker.load(config["reranker"])
        self._weights, self._depth = Weights.load(Path(config["weights"])), int(config["rerank_depth"])
        self.split: str = config["split"]
        self.tree = MBeir(Path(config["benchmark"])).with_query_text(query_text_of(self.embedder))
        self._embeddings = Embeddings(self.embedder, self.tree, chain.vectors)

    def answer(self, name: str) -> Answer:
        """Answer the first query of a setting."""
        setting = next(one for one in self.tree.settings(self.split) if one.name == name)
        query, pool = self.tree.queries(setting, self.split)[0], self.tree.pool(setting, self.split)
        with quiet(), progress("embedding") as bar:
            store = self._embeddings.candidates(pool, bar)
        instruction = query.instructions[0]
        vector_1D = self.embedder.encode([query.item], "query", instruction)
        rows_1K, cosine_1K = exact_topk(vector_1D, store, self._depth)
        dids = [pool.ids[row] for row in rows_1K[0].tolist()]
        items = [pool.item(did) for did in dids]
        score_K = fuse(cosine_1K[0], self._reranker.score(query.item, items, instruction), self._weights.of(name))
        order = (-score_K).argsort(kind="stable").tolist()
        results = (Result(items[place], float(score_K[place]), place + 1, dids[place] in query.positives) for place in order)
        return Answer(name, " -> ".join(setting.modalities or ()), query.item, instruction, tuple(results))
