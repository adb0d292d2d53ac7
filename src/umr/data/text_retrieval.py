"""Text-retrieval sets as BEIR and MTEB keep them, behind the same members as an M-BEIR tree.

    <root>/corpus.jsonl            {"_id", "title", "text"}: the documents of all splits; the title may be missing
    <root>/queries.jsonl           {"_id", "text"}: the queries of all splits
    <root>/qrels/<split>.tsv       BEIR: a header line, then query id, document id and grade, separated by tabs
    <root>/qrels/<split>.jsonl     MTEB: {"query-id", "corpus-id", "score"}, read where there is no table
    <root>/instructions.txt        ours: wordings of the instruction, one a line; without it there is one, `INSTRUCTION`

MTEB's folders differ from BEIR's in that: judgements are JSON lines with scores such as `1.0`; titles are often missing; some name
ids `id`. Sets that the hub keeps as Parquet must be written out as JSON lines first. Further fields, such as `metadata`, are
passed over, and ids are whatever the files say.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from umr.data.fingerprint import fingerprint
from umr.data.jsonl import JsonlIndex, OnError, Problem
from umr.data.mbeir import Setting
from umr.data.mbeir_records import TEXT_RETRIEVAL
from umr.data.qrels import Qrels
from umr.data.text_judgements import TextJudgements, read_judgements
from umr.data.text_queries import TextPool, TextQueries, query_index
from umr.errors import DataError
from umr.items import QueryText

if TYPE_CHECKING:
    from umr.data.mbeir_check import Report

CORPUS, QUERIES, WORDINGS = "corpus.jsonl", "queries.jsonl", "instructions.txt"
INSTRUCTION = "Given a query, find the text passages that answer it."
"""For sets that bring none: a task in one sentence, as NV-Embed (arXiv 2405.17428) writes them."""
_SPLITS = {"val": ("val", "dev", "validation")}
"""Names that a split goes by: BEIR says dev."""


class TextRetrieval:
    """A set on disk: one search, `"<folder>_task10"`, in one pool. Nothing is read before it is asked for.

    Args:
        root: the folder.
        on_error: `"fail"` raises at the first malformed line, `"skip"` leaves such lines out; `problems` lists them.
        wordings: instructions in place of those of the folder.

    Raises:
        DataError: `root` is not such a folder.
    """

    one_pool: bool = True
    shared_ids: bool = True
    own_positives: bool = False

    def __init__(self, root: Path, on_error: OnError = "fail", wordings: Sequence[str] | None = None) -> None:
        self.root, self.on_error = Path(root), on_error
        if on_error not in ("fail", "skip"):
            raise DataError(f"on_error must be 'fail' or 'skip', not {on_error!r}")
        for name in (CORPUS, QUERIES):
            if not (self.root / name).is_file():
                raise DataError(f"{self.root}: is not a text-retrieval set (it has no file {name!r})")
        self.setting = Setting(self.root.resolve().name, TEXT_RETRIEVAL)
        self._given = None if wordings is None else tuple(wordings)
        self._queries: dict[str, TextQueries] = {}
        self._judgements: dict[Path, TextJudgements] = {}

    def with_query_text(self, query_text: QueryText) -> TextRetrieval:
        """This set: its texts are taken as they are, whatever a model was trained on."""
        return self

    def settings(self, split: str) -> tuple[Setting, ...]:
        """The one setting, where `split` has judgements."""
        return (self.setting,) if self.qrels_path(self.setting, split).is_file() else ()

    def queries(self, setting: Setting | str, split: str) -> TextQueries:
        """The judged queries of a split. For training see `train_queries`."""
        self._check(setting)
        return self._opened(split, None)

    def train_queries(self, settings: Sequence[Setting | str] | None = None) -> TextQueries:
        """Training queries with their right answers, and those judged wrong as their negatives."""
        for setting in settings or ():
            self._check(setting)
        return self._opened("train", self._pool)

    def pool(self, setting: Setting | str, split: str) -> TextPool:
        """All documents."""
        self._check(setting)
        return self._pool

    def global_pool(self, split: str) -> TextPool:
        """All documents."""
        return self._pool

    def train_pool(self) -> TextPool:
        """All documents."""
        return self._pool

    def qrels(self, setting: Setting | str, split: str) -> Qrels:
        """Judgements above zero: query id -> document id -> grade. Also those on documents that the corpus lacks."""
        self._check(setting)
        return self._judged(split).relevant

    def query_path(self, setting: Setting | str, split: str) -> Path:
        """Where the queries are."""
        return self.root / QUERIES

    def pool_path(self, setting: Setting | str, split: str) -> Path:
        """Where the documents are."""
        return self.root / CORPUS

    def global_pool_path(self, split: str) -> Path:
        """Where the documents are."""
        return self.root / CORPUS

    def qrels_path(self, setting: Setting | str, split: str) -> Path:
        """Where the judgements of a split are: a table if there is one, else JSON lines; `val` may be called `dev`."""
        places = [self.root / "qrels" / f"{name}{suffix}" for name in _SPLITS.get(split, (split,)) for suffix in (".tsv", ".jsonl")]
        return next((place for place in places if place.is_file()), places[0])

    def train_judgement_paths(self) -> tuple[Path, ...]:
        """None: `train_queries` has all judgements."""
        return ()

    @property
    def instructions_path(self) -> Path:
        """Where the set's own instructions are, if it brings any."""
        return self.root / WORDINGS

    @cached_property
    def wordings(self) -> tuple[str, ...]:
        """The instructions that a query may carry."""
        if self._given is not None:
            return self._given
        if not self.instructions_path.is_file():
            return (INSTRUCTION,)
        found = tuple(filter(None, map(str.strip, self.instructions_path.read_text("utf-8").splitlines())))
        if not found:
            raise DataError(f"{self.instructions_path}: holds no instruction; write one a line, or remove it")
        return found

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Lines left out of everything opened so far."""
        opened = [self._pool.problems] if "_pool" in vars(self) else []
        return tuple(dict.fromkeys(problem for one in [*opened, *(q.problems for q in self._queries.values())] for problem in one))

    def check(self, split: str) -> Report:
        """Go through a split and count what is wrong; see `umr.data.text_check.check`."""
        from umr.data.text_check import check

        return check(self, split)

    def fingerprint(self, split: str, settings: Sequence[Setting | str] | None = None) -> str:
        """Hash over documents, queries, judgements and instructions of a split; see `umr.data.fingerprint`."""
        paths = (self.root / CORPUS, self.root / QUERIES, self.qrels_path(self.setting, split), self.instructions_path)
        return fingerprint((path for path in paths if path.is_file()), self.root)

    def judgements(self, split: str) -> TextJudgements:
        """The judgements of a split, with the lines left out."""
        return self._judged(split)

    @cached_property
    def _pool(self) -> TextPool:
        return TextPool(self.root / CORPUS, self.on_error)

    @cached_property
    def _index(self) -> JsonlIndex:
        return query_index(self.root / QUERIES, self.on_error)

    def _opened(self, split: str, pool: TextPool | None) -> TextQueries:
        key = f"{split} with answers" if pool is not None else split
        if key not in self._queries:
            self._queries[key] = TextQueries(self._index, self._judged(split), self.wordings, pool, self.on_error == "skip")
        return self._queries[key]

    def _judged(self, split: str) -> TextJudgements:
        path = self.qrels_path(self.setting, split)
        if path not in self._judgements:
            self._judgements[path] = read_judgements(path, self.on_error)
        return self._judgements[path]

    def _check(self, setting: Setting | str) -> None:
        name = setting if isinstance(setting, str) else setting.name
        if name != self.setting.name:
            raise DataError(f"{self.root}: has no setting {name!r}; its only one is {self.setting.name}")
