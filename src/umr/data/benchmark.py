"""What evaluation, mining, scoring and training ask of a benchmark, whatever its layout on disk, and opening one by its layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from umr.data.jsonl_scan import OnError, Problem
from umr.data.mbeir_records import MBeirQuery
from umr.data.qrels import Qrels
from umr.errors import DataError
from umr.items import Item, QueryText

if TYPE_CHECKING:
    from umr.data.mbeir import Setting
    from umr.data.mbeir_check import Report

PoolName = Literal["local", "global"]


class Pool(Protocol):
    """Candidates in file order, by id; see `umr.data.mbeir_pool.Pool`."""

    path: Path

    def __len__(self) -> int: ...

    def __contains__(self, did: object) -> bool: ...

    @property
    def ids(self) -> Sequence[str]:
        """All ids in file order."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Lines left out."""
        ...

    def item(self, did: str) -> Item:
        """The candidate with this id."""
        ...

    def modality(self, did: str) -> str:
        """What kind of candidate it is."""
        ...

    def items(self, start: int = 0, stop: int | None = None) -> Iterator[Item]:
        """The candidates of some rows."""
        ...

    def find(self, dids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows of ids, -1 where there is none."""
        ...


class Queries(Protocol):
    """Queries in file order; see `umr.data.mbeir_queries.Queries`."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> MBeirQuery: ...

    def get(self, qid: str) -> MBeirQuery:
        """The query with this id."""
        ...

    @property
    def ids(self) -> list[str]:
        """All ids in order."""
        ...

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that decide what the queries are."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Lines left out."""
        ...


class Benchmark(Protocol):
    """A benchmark on disk: `umr.data.mbeir.MBeir` or `umr.data.text_retrieval.TextRetrieval`, which document the members.

    Attributes:
        root: its folder.
        on_error: what is done about unusable lines.
        one_pool: whether the candidates of a setting are those of all settings, so that local and global pool are the same.
        shared_ids: whether a candidate whose id is a query's is that query, which is no result of its own search.
        own_positives: whether right answers from other datasets than the query's are left out.
    """

    root: Path
    on_error: OnError
    one_pool: bool
    shared_ids: bool
    own_positives: bool

    def with_query_text(self, query_text: QueryText) -> Self:
        """This benchmark with its queries cleaned in another way."""
        ...

    def settings(self, split: str) -> tuple[Setting, ...]:
        """The searches of a split."""
        ...

    def queries(self, setting: Setting | str, split: str) -> Queries:
        """The queries of one setting of `val` or `test`."""
        ...

    def train_queries(self, settings: Sequence[Setting | str] | None = None) -> Queries:
        """Training queries with their right and wrong answers."""
        ...

    def pool(self, setting: Setting | str, split: str) -> Pool:
        """The candidates of one setting."""
        ...

    def global_pool(self, split: str) -> Pool:
        """The candidates of all settings."""
        ...

    def train_pool(self) -> Pool:
        """The candidates that training queries refer to."""
        ...

    def qrels(self, setting: Setting | str, split: str) -> Qrels:
        """Judgements above zero."""
        ...

    def query_path(self, setting: Setting | str, split: str) -> Path:
        """Where the queries of a setting are."""
        ...

    def pool_path(self, setting: Setting | str, split: str) -> Path:
        """Where the candidates of a setting are."""
        ...

    def global_pool_path(self, split: str) -> Path:
        """Where the candidates of all settings are."""
        ...

    def qrels_path(self, setting: Setting | str, split: str) -> Path:
        """Where the judgements of a setting are."""
        ...

    def train_judgement_paths(self) -> tuple[Path, ...]:
        """Files of judgements in TREC's format that say more about training queries than `train_queries` does."""
        ...

    @property
    def instructions_path(self) -> Path:
        """Where instructions are, if there are any."""
        ...

    def check(self, split: str) -> Report:
        """Go through a whole split and count what is wrong."""
        ...

    def fingerprint(self, split: str, settings: Sequence[Setting | str] | None = None) -> str:
        """Hash over the files of a split."""
        ...


def open_benchmark(path: Path, on_error: OnError = "fail", query_text: QueryText = "separate", own_positives: bool = False) -> Benchmark:
    """The reader for a folder: a text-retrieval set if it has a `corpus.jsonl`, else an M-BEIR tree.

    Raises:
        DataError: it is neither, or `own_positives` is asked of a text-retrieval set.
    """
    from umr.data.mbeir import MBeir
    from umr.data.text_retrieval import CORPUS, TextRetrieval

    if (Path(path) / CORPUS).is_file():
        if own_positives:
            raise DataError(f"{path}: is one dataset, so that own_positives has no effect; leave it out")
        return TextRetrieval(Path(path), on_error)
    return MBeir(Path(path), on_error, query_text, own_positives)


def searched_pools(benchmark: Benchmark, asked: Sequence[PoolName]) -> tuple[PoolName, ...]:
    """The pools to search when `asked` are wanted: where both are one it is called local, and searched once."""
    return ("local",) if benchmark.one_pool else tuple(asked)
