"""Teacher scores on disk: for each query the candidates that a retriever found, its cosines, and a reranker's P(Yes).

A table may hold the scores of several teachers on the lists of several retrievers; a `ScoreTable` reads those of one.
See `umr.mining.scores_files` for the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umr.errors import StoreError
from umr.mining.scores_files import AGAIN, LISTS, Manifest, ShardReader
from umr.store.shard_folder import check_contents, digest


@dataclass(frozen=True)
class ScoredList:
    """One query's list, best cosine first.

    Attributes:
        qid: the query.
        setting: the search it belongs to, such as `"mscoco_task0"`.
        pool: where the candidates were found, `"local"` or `"global"`.
        dids: K candidates.
        cosine_K: the retriever's similarities, float32, shape (K,).
        yes_K: the teacher's P(Yes), float32, shape (K,).
    """

    qid: str
    setting: str
    pool: str
    dids: tuple[str, ...]
    cosine_K: npt.NDArray[np.float32]
    yes_K: npt.NDArray[np.float32]


class ScoreTable:
    """The lists of one teacher and one retriever, read as they are asked for; larger than memory is fine.

    An index of some 30 bytes a list is held, and the shards used last.

    Args:
        path: folder that `umr.mining.scoring.score` wrote.
        revision: fingerprint of the teacher; may be left out when the table holds one.
        retriever: fingerprint of the model whose lists these are; may be left out when there is one.

    Raises:
        StoreError: no table there, a damaged one, or one of several teachers (or retrievers) must be named. Names them.

    Example:
        >>> table = ScoreTable(Path("runs/scores"))                                     # doctest: +SKIP
        >>> table[0].qid, table[0].dids[:2], table[0].yes_K[:2]                         # doctest: +SKIP
    """

    def __init__(self, path: Path, revision: str | None = None, retriever: str | None = None) -> None:
        self.path = Path(path)
        self._manifest = Manifest.read(self.path)
        self._shards = ShardReader(self.path, self._manifest.shards)
        lists = read_lists(self._shards)
        self.revision = _one_of(self.path, lists, "revision", revision)
        self.retriever = _one_of(self.path, lists, "retriever", retriever)
        mine = pc.and_(pc.equal(lists["revision"], self.revision), pc.equal(lists["retriever"], self.retriever))
        lists = lists.filter(mine)
        self._qids: pa.Array = lists["qid"].combine_chunks()
        self._shard_L, self._start_L, self._length_L = (lists[name].to_numpy() for name in ("shard", "start", "length"))
        self._setting_L, self._setting_names = _codes(lists["setting"])
        self._pool_L, self._pool_names = _codes(lists["pool"])
        self._positives_L = lists["positives"].to_numpy()

    def __len__(self) -> int:
        return len(self._qids)

    def __getitem__(self, index: int) -> ScoredList:
        if not -len(self) <= index < len(self):
            raise IndexError(f"list {index} of {len(self)}")
        index = int(index) % len(self)
        rows = self._shards.rows(int(self._shard_L[index]))
        here = slice(int(self._start_L[index]), int(self._start_L[index] + self._length_L[index]))
        dids = tuple(rows.dids[here].to_pylist())
        setting, pool = self._setting_names[self._setting_L[index]], self._pool_names[self._pool_L[index]]
        return ScoredList(self._qids[index].as_py(), setting, pool, dids, rows.cosine_N[here].copy(), rows.yes_N[here].copy())

    @property
    def settings(self) -> list[str]:
        """Settings that have lists, in order of appearance."""
        return list(self._setting_names)

    @property
    def data(self) -> str:
        """Fingerprint of what was scored."""
        return self._manifest.data

    @property
    def split(self) -> str:
        """Which queries were scored: `"train"`, `"val"` or `"test"`."""
        return self._manifest.split

    @property
    def instruction(self) -> str:
        """Which wording the queries carried."""
        return self._manifest.instruction

    def of_setting(self, name: str, pools: Sequence[str] | None = None) -> npt.NDArray[np.int64]:
        """Indices of the lists of a setting, shape (n,); empty for a setting without any.

        Args:
            name: of the setting.
            pools: `"local"`, `"global"` or both; all by default.
        """
        wanted = [code for code, pool in enumerate(self._pool_names) if pools is None or pool in pools]
        settings = [code for code, setting in enumerate(self._setting_names) if setting == name]
        return np.flatnonzero(np.isin(self._setting_L, settings) & np.isin(self._pool_L, wanted)).astype(np.int64)

    @property
    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Setting -> pool -> `lists`, and how many of them hold a right answer (`with_positive`)."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for setting, name in enumerate(self._setting_names):
            for pool, place in enumerate(self._pool_names):
                here = (self._setting_L == setting) & (self._pool_L == pool)
                if here.any():
                    counted = {"lists": int(here.sum()), "with_positive": int((self._positives_L[here] > 0).sum())}
                    found.setdefault(name, {})[place] = counted
        return found

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits over the scores of this teacher and retriever and what was scored; not over paths or dates."""
        parts = [self._manifest.data, self._manifest.split, self._manifest.instruction, self.revision, self.retriever]
        parts += [self._manifest.shards[int(number)].content for number in np.unique(self._shard_L)]
        return digest("\n".join(parts).encode())

    def verify(self) -> None:
        """Read every file and compare its hash with the manifest. Raises `StoreError` naming a file that has changed."""
        for shard in self._manifest.shards:
            check_contents(self.path, shard.files, AGAIN)


def read_lists(shards: ShardReader) -> pa.Table:
    """The indexes of all shards, with the number of the `shard` added."""
    empty = LISTS.empty_table().append_column("shard", pa.array([], pa.int32()))
    tables = [shards.lists(number) for number in range(len(shards.shards))]
    numbered = [table.append_column("shard", pa.array([number] * len(table), pa.int32())) for number, table in enumerate(tables)]
    return pa.concat_tables([empty, *numbered])


def _one_of(path: Path, lists: pa.Table, column: str, wanted: str | None) -> str:
    found: list[str] = sorted(pc.unique(lists[column]).to_pylist())
    if wanted is None and len(found) == 1:
        return found[0]
    if not found:
        raise StoreError(f"{path}: the score table is empty; run `umr score` to its end")
    if wanted in found:
        return str(wanted)
    what = "teachers" if column == "revision" else "retrievers"
    known = ", ".join(found) if column == "retriever" else _teachers(lists)
    if wanted is None:
        raise StoreError(f"{path}: holds the scores of {len(found)} {what}; name one as {column}: {known}")
    raise StoreError(f"{path}: has no {column} {wanted!r}; it has {known}")


def _teachers(lists: pa.Table) -> str:
    pairs = lists.group_by(["revision", "teacher"]).aggregate([]).to_pylist()
    return ", ".join(sorted(f"{pair['revision']} ({pair['teacher']})" for pair in pairs))


def _codes(names: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], list[str]]:
    encoded = names.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return np.asarray(encoded.indices, np.int32), encoded.dictionary.to_pylist()
