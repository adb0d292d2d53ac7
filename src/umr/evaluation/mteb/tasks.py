"""A benchmark of ours, such as World, as retrieval tasks of mteb's, so that any of mteb's models can be measured on it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from datasets import Video as VideoFeature
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskCategory, TaskMetadata

from umr.data.benchmark import Benchmark, PoolName, open_benchmark, searched_pools
from umr.data.mbeir import Setting
from umr.errors import DataError
from umr.evaluation.declarations import main_metric
from umr.evaluation.searches import chosen_settings
from umr.evaluation.wording import Wording, check_wording, instruction_of
from umr.items import Image, Item, QueryText, Video

_LETTERS = {"image": "i", "text": "t", "video": "v"}
_METRICS = {"hit": "hit_rate", "ndcg": "ndcg"}


class BenchmarkTask(AbsTaskRetrieval):
    """One search of a benchmark as a task of mteb's: its `ndcg_at_10` and `hit_rate_at_5` are our `ndcg@10` and `hit@5` over 100.

    One difference is mteb's: queries without any right answer are left out of its means, and score 0 in ours. A mixed pool, which the
    global one is, has all columns: a candidate without text has an empty one, and no image is null.

    Args:
        benchmark: a reader.
        setting: the search.
        split: `"test"` or `"val"`.
        pool: what is searched.
        instruction: wording of the queries' instruction. One that all share is the task's prompt, else each row has its own,
            which is empty for none.
        query_text: how queries are cleaned: `query_text_of(encoder)`.
    """

    data_loaded: bool

    def __init__(
        self,
        benchmark: Benchmark,
        setting: Setting,
        split: str = "test",
        pool: PoolName = "local",
        instruction: Wording = "first",
        query_text: QueryText = "separate",
    ) -> None:
        check_wording(instruction)
        self._benchmark = benchmark.with_query_text(query_text)
        self._setting, self._split, self._pool, self._wording = setting, split, pool, instruction
        self._kinds = _kinds(benchmark, setting, split, pool)
        self.metadata = self._metadata(query_text)
        self.ignore_identical_ids = benchmark.shared_ids
        super().__init__()

    def load_data(self, num_proc: int | None = None, **options: Any) -> None:
        """Read queries, candidates and judgements; images and videos stay files. mteb's arguments are not used."""
        if self.data_loaded:
            return
        asked, pool = self._benchmark.queries(self._setting, self._split), self._searched()
        queries = [asked[place] for place in range(len(asked))]
        wordings = [instruction_of(query, self._wording) for query in queries]
        prompt = self.metadata.prompt
        shared = isinstance(prompt, dict) and set(wordings) == {prompt.get("query")}
        split = RetrievalSplitData(
            corpus=_table(list(pool.items()), self._kinds[1]),
            queries=_table([query.item for query in queries], self._kinds[0], None if shared else wordings),
            relevant_docs={qid: dict(dids) for qid, dids in self._benchmark.qrels(self._setting, self._split).items()},
            top_ranked=None,
        )
        self.dataset = {"default": {self._split: split}}
        self.data_loaded = True

    def unload_data(self) -> None:
        """Forget queries and candidates. The metadata stay: mteb's own method drops those that are not of the class."""
        self.dataset, self.data_loaded = {}, False

    def _searched(self) -> Any:
        if self._pool == "local":
            return self._benchmark.pool(self._setting, self._split)
        return self._benchmark.global_pool(self._split)

    def _metadata(self, query_text: QueryText) -> TaskMetadata:
        benchmark, setting = self._benchmark, self._setting
        data = benchmark.fingerprint(self._split, [setting])
        # mteb takes results of other data for results of these where the names are the same.
        label = hashlib.blake2b("\0".join((data, self._wording, query_text)).encode(), digest_size=4).hexdigest()
        queries = benchmark.queries(setting, self._split)
        wording = instruction_of(queries[0], self._wording) if len(queries) else None
        metric, _, depth = main_metric(setting.name).partition("@")
        pair = [",".join(sorted(kinds)) for kinds in self._kinds]
        category = "2".join("".join(_LETTERS[kind] for kind in kinds.split(",")) for kinds in pair)
        modalities = sorted(set(self._kinds[0]) | set(self._kinds[1]))
        return TaskMetadata(
            name=f"{benchmark.root.resolve().name}-{setting.name}-{self._pool}-{label}",
            description=f"Queries of {setting.name} in the {self._pool} pool of {benchmark.root.resolve().name}.",
            type="Retrieval" if modalities == ["text"] else "Any2AnyRetrieval",
            category=category if category in get_args(TaskCategory) and self._pool == "local" else None,
            modalities=modalities,
            dataset={"path": benchmark.root.resolve().name, "revision": data},
            eval_splits=[self._split],
            eval_langs=["eng-Latn"],
            main_score=f"{_METRICS[metric]}_at_{depth}",
            prompt=None if wording is None else {"query": wording},
        )


def benchmark_tasks(
    benchmark: Benchmark | Path,
    split: str = "test",
    pools: Sequence[PoolName] = ("local",),
    tasks: Sequence[str] | None = None,
    instruction: Wording = "first",
    query_text: QueryText = "separate",
) -> list[BenchmarkTask]:
    """The searches of a benchmark as tasks of mteb's.

    Args:
        benchmark: a reader, or the folder of an M-BEIR tree, World or a text-retrieval set.
        split: which queries.
        pools: what they search.
        tasks: names of settings; all by default.
        instruction: as of `BenchmarkTask`.
        query_text: likewise.

    Raises:
        DataError: unusable data, or an unknown setting.
        RecipeError: an unknown wording.
    """
    opened = open_benchmark(Path(benchmark)) if isinstance(benchmark, str | Path) else benchmark
    return [
        BenchmarkTask(opened, setting, split, pool, instruction, query_text)
        for pool in searched_pools(opened, pools)
        for setting in chosen_settings(opened, split, tasks)
    ]


def _kinds(benchmark: Benchmark, setting: Setting, split: str, pool: PoolName) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What queries and candidates may be made of; in a global pool mteb wants both sides to have all columns."""
    if pool == "local":
        query, candidate = setting.modalities or ("image,text", "image,text")
        return tuple(query.split(",")), tuple(candidate.split(","))
    found = {kind for one in benchmark.settings(split) for side in one.modalities or ("image,text",) for kind in side.split(",")}
    return tuple(sorted(found)), tuple(sorted(found))


def _table(items: Sequence[Item], kinds: Sequence[str], wordings: Sequence[str | None] | None = None) -> Dataset:
    """Rows with `id`, and `text`, `image`, `video` and `instruction` where there are any.

    Raises:
        DataError: an item has something that the task has not, or several of a kind.
    """
    for item in items:
        held = [part.modality for part in item.parts]
        if set(held) - set(kinds) or len(held) > len(set(held)):
            raise DataError(f"item {item.id}: holds {', '.join(held)}, and mteb's rows of this task hold one {' and one '.join(kinds)}")
    columns: dict[str, list[Any]] = {"id": [item.id for item in items]}
    features: dict[str, Any] = {"id": Value("string")}
    if "text" in kinds:
        columns["text"], features["text"] = [item.text for item in items], Value("string")
    for kind, feature in (("image", ImageFeature()), ("video", VideoFeature())):
        files = [_file(item, kind) for item in items]
        if any(files):
            columns[kind], features[kind] = files, feature
    if wordings is not None:
        columns["instruction"], features["instruction"] = [wording or "" for wording in wordings], Value("string")
    return Dataset.from_dict(columns, features=Features(features))


def _file(item: Item, kind: str) -> str | None:
    for part in item.parts:
        if isinstance(part, Image | Video) and part.modality == kind and isinstance(part.source, Path):
            return str(part.source.resolve())
    return None
