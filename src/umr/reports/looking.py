"""Queries, candidates and right answers of an evaluation by id, as cards with their pictures."""

from __future__ import annotations

from umr.data.benchmark import Benchmark, Pool
from umr.errors import DataError
from umr.evaluation.wording import instruction_of
from umr.gallery import card
from umr.items import Item
from umr.reports.saved import Evaluation


class Looking:
    """Shows what was asked and found.

    Args:
        benchmark: what was evaluated on.
        split: of the queries.
        wording: of the instructions.
    """

    def __init__(self, benchmark: Benchmark, split: str, wording: str) -> None:
        self._benchmark, self._split, self._wording = benchmark, split, wording

    @classmethod
    def at(cls, benchmark: Benchmark, evaluation: Evaluation) -> Looking:
        """For an evaluation's queries. Raises `DataError` where the benchmark has other data than the evaluation's."""
        about = evaluation.content["data"]
        found = benchmark.fingerprint(about["split"], [one["setting"] for one in evaluation.content["settings"]])
        if found != about["fingerprint"]:
            raise DataError(
                f"{benchmark.root}: is not the data that {evaluation.name} was evaluated on; name that, or leave the benchmark out"
            )
        wording = evaluation.content["instruction"]
        return cls(benchmark, about["split"], "first" if wording == "unknown" else wording)  # of run files nobody knows it

    def query(self, setting: str, qid: str) -> str:
        """A query's card."""
        return card(self._benchmark.queries(setting, self._split).get(qid).item, f"query {qid}", "query")

    def instruction(self, setting: str, qid: str) -> str:
        """What the query was asked with; `""` where it has no instruction."""
        query = self._benchmark.queries(setting, self._split).get(qid)
        return instruction_of(query, self._wording) or ""

    def right(self, setting: str, pool: str, qid: str) -> tuple[str, str] | None:
        """Id and card of a right answer that the pool has; `None` without one."""
        for did in self._benchmark.qrels(setting, self._split).get(qid, {}):
            if did in self._pool(setting, pool):
                return did, self.candidate(setting, pool, did, f"right answer {did}", "right")
        return None

    def candidate(self, setting: str, pool: str, did: str | None, mark: str, kind: str = "") -> str:
        """A candidate's card; one that says so where there is none."""
        if did is None:
            return card(Item.of(text="no result"), mark)
        return card(self._pool(setting, pool).item(did), mark, kind)

    def _pool(self, setting: str, pool: str) -> Pool:
        return self._benchmark.pool(setting, self._split) if pool == "local" else self._benchmark.global_pool(self._split)
