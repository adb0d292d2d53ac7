"""Queries and candidates of an evaluation split by id, as a reranker is shown them."""

from __future__ import annotations

from collections.abc import Callable

from umr.data.benchmark import Benchmark
from umr.data.mbeir_queries import MBeirQuery
from umr.evaluation.wording import Wording, instruction_of
from umr.items import Item
from umr.mining.fill import Asked


def asked(query: MBeirQuery, positives: tuple[str, ...], wording: Wording) -> Asked:
    """A query with the instruction that the retriever saw."""
    return Asked(query.item, instruction_of(query, wording), positives)


def questions(benchmark: Benchmark, setting: str, split: str, wording: Wording) -> Callable[[str], Asked]:
    """The queries of a setting by qid."""
    queries, qrels = benchmark.queries(setting, split), benchmark.qrels(setting, split)
    return lambda qid: asked(queries.get(qid), tuple(qrels.get(qid, ())), wording)


def candidates(benchmark: Benchmark, setting: str, split: str, pool: str) -> Callable[[str], Item]:
    """The candidates of a setting by did; in training both pools are parts of one."""
    if split == "train":
        return benchmark.train_pool().item
    return (benchmark.pool(setting, split) if pool == "local" else benchmark.global_pool(split)).item
