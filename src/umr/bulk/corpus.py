"""What is embedded: a manifest, a pool of an M-BEIR tree, or the documents of a text-retrieval set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from umr.data.benchmark import Benchmark, Pool, open_benchmark
from umr.data.manifest import SUFFIXES, open_manifest
from umr.errors import DataError, RecipeError
from umr.items import Item
from umr.store.embedding import Fetch
from umr.store.source import data_label

GLOBAL = "global"


@dataclass(frozen=True)
class Corpus:
    """Items by position. Can be sent to other processes, which open the files anew.

    Attributes:
        ids: N unique ids.
        fetch: gives the items of a range of positions.
        source: label of the data.
    """

    ids: Sequence[str]
    fetch: Fetch
    source: str


def open_corpus(path: Path, pool: str | None = None, split: str | None = None) -> Corpus:
    """Open what `umr embed` takes.

    Args:
        path: a manifest (see `umr.data.manifest`), or the folder of a benchmark.
        pool: of an M-BEIR tree: the name of a setting, or `"global"` for the candidates of all.
        split: of an M-BEIR tree; `"test"` by default. Of `"train"` there is the global pool only.

    Raises:
        DataError: unusable data, no such pool, or nothing in it.
        RecipeError: pool or split without effect, or a pool that is missing.
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        _without_effect(path, "a manifest", pool, split)
        rows = open_manifest(path)
        return _labelled(rows.ids, rows.items, path, path.parent)
    if not path.is_dir():
        raise DataError(f"{path}: is neither a manifest ({', '.join(SUFFIXES)}) nor the folder of a benchmark")
    benchmark = open_benchmark(path)
    if benchmark.one_pool:
        _without_effect(path, "a text-retrieval set, which has one corpus", pool, split)
        candidates = benchmark.train_pool()
    else:
        candidates = _pool(benchmark, pool, split or "test")
    return _labelled(candidates.ids, partial(_items, candidates), candidates.path, path)


def _pool(benchmark: Benchmark, name: str | None, split: str) -> Pool:
    settings = [] if split == "train" else [setting.name for setting in benchmark.settings(split)]
    if name is None or (name != GLOBAL and name not in settings):
        missing = "which pool? Give it with --pool" if name is None else f"there is no pool {name!r} in split {split!r}"
        raise RecipeError(f"{benchmark.root}: {missing}: {', '.join([GLOBAL, *settings])}")
    return benchmark.global_pool(split) if name == GLOBAL else benchmark.pool(name, split)


def _without_effect(path: Path, what: str, pool: str | None, split: str | None) -> None:
    for name, value in (("--pool", pool), ("--split", split)):
        if value is not None:
            raise RecipeError(f"{path}: is {what}, so {name} has no effect; leave it out")


def _labelled(ids: Sequence[str], fetch: Fetch, path: Path, root: Path) -> Corpus:
    if not len(ids):
        raise DataError(f"{path}: is empty, there is nothing to embed")
    return Corpus(ids, fetch, data_label([path], root, len(ids), fetch))


def _items(pool: Pool, start: int, stop: int) -> list[Item]:
    return list(pool.items(start, stop))
