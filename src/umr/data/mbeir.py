"""One reader for a real M-BEIR tree and for a generated World, which has the same layout.

    <root>/query/<split>/mbeir_<name>_<split>.jsonl          name = <dataset>_task<k>; in train also <dataset> alone
    <root>/query/union_train/mbeir_union_up_train.jsonl
    <root>/cand_pool/local/mbeir_<name>[_<split>]_cand_pool.jsonl
    <root>/cand_pool/global/mbeir_union_<split>_cand_pool.jsonl
    <root>/qrels/<split>/mbeir_<name>_<split>_qrels.txt
    <root>/instructions/query_instructions.tsv

Our one extension is task 9, text -> video, whose candidates have a `video_path`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from umr.data.fingerprint import fingerprint
from umr.data.instructions import Instructions
from umr.data.jsonl import OnError, Problem
from umr.data.mbeir_pool import Pool
from umr.data.mbeir_queries import Queries
from umr.data.mbeir_records import TASKS, dataset_of
from umr.data.qrels import Judgements, Qrels, read_qrels
from umr.errors import DataError
from umr.items import QueryText

if TYPE_CHECKING:
    from umr.data.mbeir_check import Report

_ORDER = ("visualnews", "mscoco", "fashion200k", "edis", "webqa", "nights", "oven", "infoseek", "fashioniq", "cirr")
_NAME = re.compile(r"(?P<dataset>.+?)(?:_task(?P<task>[0-9]+))?")


@dataclass(frozen=True)
class Setting:
    """One of the searches a benchmark consists of.

    Attributes:
        dataset: such as `"mscoco"`.
        task: key of `TASKS`; `None` for a training file that mixes the tasks of a dataset.
    """

    dataset: str
    task: int | None

    @classmethod
    def of(cls, name: str) -> Setting:
        """From a name such as `"mscoco_task0"`. Raises `DataError` for an unknown task."""
        match = _NAME.fullmatch(name)
        task = int(match["task"]) if match and match["task"] else None
        if not match or (task is not None and task not in TASKS):
            raise DataError(f"{name!r} names no M-BEIR setting; expected <dataset>_task<k> with k in {sorted(TASKS)}")
        return cls(match["dataset"], task)

    @property
    def name(self) -> str:
        """As in file names: `"mscoco_task0"`."""
        return self.dataset if self.task is None else f"{self.dataset}_task{self.task}"

    @property
    def modalities(self) -> tuple[str, str] | None:
        """Modality of the queries and of what they look for; `None` without a task."""
        return None if self.task is None else TASKS[self.task]


class MBeir:
    """A benchmark on disk. Nothing is read before it is asked for; pools are opened once.

    Args:
        root: the folder that holds `query`, `cand_pool` and the images.
        on_error: `"fail"` raises at the first malformed line, and an image that is missing raises when it is opened
            (`check` finds it earlier). `"skip"` is for partial trees: malformed lines and lines whose image or video is missing are
            left out, and training queries keep only positives and negatives that are in the pool, or are left out with none;
            `problems` lists what was. Queries of evaluation splits stay even if no positive of theirs is in the pool.
        query_text: how the text of queries that have an instruction is cleaned. `"separate"`: on its own (`normalise_text`).
            `"joined"`: as the end of one string with the instruction, which checkpoints of M-BEIR's authors and their successors
            expect (`normalise_after_instruction`). Those who show queries to a model ask it: `with_query_text(query_text_of(encoder))`.
        own_positives: `qrels` keeps only right answers from the query's own dataset, the number before the colon of ids. OVEN and InfoSeek
            judge candidates of each other, which their local pools lack. UniIR tells by them what a query wants, but scores with all.

    Raises:
        DataError: `root` is not such a folder.
    """

    one_pool: bool = False
    shared_ids: bool = False
    own_positives: bool

    def __init__(self, root: Path, on_error: OnError = "fail", query_text: QueryText = "separate", own_positives: bool = False) -> None:
        self.root, self.on_error, self.query_text, self.own_positives = Path(root), on_error, query_text, own_positives
        if on_error not in ("fail", "skip"):
            raise DataError(f"on_error must be 'fail' or 'skip', not {on_error!r}")
        if query_text not in get_args(QueryText):
            raise DataError(f"query_text must be 'separate' or 'joined', not {query_text!r}")
        if not (self.root / "query").is_dir():
            raise DataError(f"{self.root}: is not an M-BEIR folder (no folder 'query'), nor a text-retrieval set (no 'corpus.jsonl')")
        self._pools: dict[Path, Pool] = {}
        self._queries: dict[tuple[Path, ...], Queries] = {}
        self._judgements: dict[Path, Judgements] = {}

    def with_query_text(self, query_text: QueryText) -> MBeir:
        """This benchmark with its queries cleaned in this way; pools and judgements that are open are shared."""
        if query_text == self.query_text:
            return self
        other = MBeir(self.root, self.on_error, query_text, self.own_positives)
        other._pools, other._judgements = self._pools, self._judgements
        return other

    def settings(self, split: str) -> tuple[Setting, ...]:
        """The settings that `split` has query files for, by task and then in M-BEIR's order of datasets."""
        names = (path.name for path in (self.root / "query" / split).glob(f"mbeir_*_{split}.jsonl"))
        found = [Setting.of(name.removeprefix("mbeir_").removesuffix(f"_{split}.jsonl")) for name in names]
        return tuple(sorted(found, key=_place))

    def queries(self, setting: Setting | str, split: str) -> Queries:
        """The queries of one setting of `val` or `test`. For training see `train_queries`."""
        setting = _setting(setting)
        path = self.query_path(setting, split)
        if (path,) not in self._queries:
            self._queries[path,] = Queries([path], self.root, self.on_error, self.wordings, task=setting.task, query_text=self.query_text)
        return self._queries[path,]

    def train_queries(self, settings: Sequence[Setting | str] | None = None) -> Queries:
        """Training queries, in which a qid may occur more than once.

        Args:
            settings: which of `settings("train")`; by default the union file if there is one, else all.
        """
        paths = self.train_query_paths(settings)
        if paths not in self._queries:
            self._queries[paths] = Queries(
                paths, self.root, self.on_error, self.wordings, pool=self.train_pool(), query_text=self.query_text
            )
        return self._queries[paths]

    def pool(self, setting: Setting | str, split: str) -> Pool:
        """The candidates of one setting of `val` or `test`; see `pool_path`."""
        return self._pool(self.pool_path(setting, split))

    def global_pool(self, split: str) -> Pool:
        """All candidates of a split, over all settings."""
        return self._pool(self.global_pool_path(split))

    def train_pool(self) -> Pool:
        """The candidates that training queries refer to."""
        return self.global_pool("train")

    def qrels(self, setting: Setting | str, split: str) -> Qrels:
        """Judgements above zero: qid -> did -> relevance. Also those on candidates outside the local pool, unless `own_positives`."""
        relevant = self.judgements(setting, split).relevant
        if not self.own_positives:
            return relevant
        return {qid: {did: value for did, value in of.items() if dataset_of(did) == dataset_of(qid)} for qid, of in relevant.items()}

    def judgements(self, setting: Setting | str, split: str) -> Judgements:
        """The judgements of one setting with the lines left out."""
        path = self.qrels_path(setting, split)
        if path not in self._judgements:
            self._judgements[path] = read_qrels(path, self.on_error)
        return self._judgements[path]

    def query_path(self, setting: Setting | str, split: str) -> Path:
        """Where the queries of a setting are."""
        return self.root / "query" / split / f"mbeir_{_setting(setting).name}_{split}.jsonl"

    def train_query_paths(self, settings: Sequence[Setting | str] | None = None) -> tuple[Path, ...]:
        """The files that `train_queries` reads."""
        union = self.root / "query" / "union_train" / "mbeir_union_up_train.jsonl"
        if settings is None and union.is_file():
            return (union,)
        paths = tuple(self.query_path(setting, "train") for setting in (self.settings("train") if settings is None else settings))
        if not paths:
            raise DataError(f"{self.root}: has no training queries")
        return paths

    def pool_path(self, setting: Setting | str, split: str) -> Path:
        """Where the candidates of a setting are: a file for this split alone if there is one, as in MSCOCO, else one for all."""
        name, folder = _setting(setting).name, self.root / "cand_pool" / "local"
        own = folder / f"mbeir_{name}_{split}_cand_pool.jsonl"
        return own if own.is_file() else folder / f"mbeir_{name}_cand_pool.jsonl"

    def global_pool_path(self, split: str) -> Path:
        """Where the candidates of all settings of a split are."""
        return self.root / "cand_pool" / "global" / f"mbeir_union_{split}_cand_pool.jsonl"

    def qrels_path(self, setting: Setting | str, split: str) -> Path:
        """Where the judgements of a setting are."""
        return self.root / "qrels" / split / f"mbeir_{_setting(setting).name}_{split}_qrels.txt"

    def train_judgement_paths(self) -> tuple[Path, ...]:
        """Files of training judgements, which may call more right than the queries' own lists do."""
        return tuple(sorted((self.root / "qrels" / "train").glob("mbeir_*_train_qrels.txt")))

    @property
    def instructions_path(self) -> Path:
        """Where the instructions are, if there are any."""
        return self.root / "instructions" / "query_instructions.tsv"

    @cached_property
    def instructions(self) -> Instructions | None:
        """The instructions; `None` for a tree without the file, whose queries then have none."""
        path = self.instructions_path
        return Instructions(path) if path.exists() else None

    def wordings(self, qid: str, query_modality: str, target_modality: str) -> tuple[str, ...]:
        """The instructions that a query may carry."""
        if self.instructions is None:
            return ()
        dataset = dataset_of(qid)
        if dataset is None:
            raise DataError(f"query {qid!r}: its id must be <dataset id>:<number> for an instruction to be found")
        return self.instructions.find(dataset, query_modality, target_modality)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Lines left out of everything opened so far."""
        left_out = [pool.problems for pool in self._pools.values()]
        left_out += [queries.problems for queries in self._queries.values()]
        left_out += [judgements.problems for judgements in self._judgements.values()]
        return tuple(problem for problems in left_out for problem in problems)

    def check(self, split: str, settings: Sequence[Setting | str] | None = None, images: bool = True) -> Report:
        """Go through a whole split and count what is wrong; see `umr.data.mbeir_check.check`."""
        from umr.data.mbeir_check import check

        return check(self, split, settings, images)

    def fingerprint(self, split: str, settings: Sequence[Setting | str] | None = None) -> str:
        """Hash over the queries, pools, judgements and instructions of a split; see `umr.data.fingerprint`."""
        paths = {self.global_pool_path(split), self.instructions_path}
        if split == "train":
            paths |= set(self.train_query_paths(settings))
        else:
            for setting in self.settings(split) if settings is None else settings:
                paths |= {self.query_path(setting, split), self.pool_path(setting, split), self.qrels_path(setting, split)}
        return fingerprint((path for path in paths if path.is_file()), self.root)

    def _pool(self, path: Path) -> Pool:
        if path not in self._pools:
            self._pools[path] = Pool(path, self.root, self.on_error)
        return self._pools[path]


def _setting(setting: Setting | str) -> Setting:
    return setting if isinstance(setting, Setting) else Setting.of(setting)


def _place(setting: Setting) -> tuple[int, int, str]:
    known = _ORDER.index(setting.dataset) if setting.dataset in _ORDER else len(_ORDER)
    return (-1 if setting.task is None else setting.task), known, setting.dataset
