"""`Collection`: things that can be found, in a folder. Search it, add to it, take away from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from umr.errors import DataError, RecipeError, StoreError
from umr.items import Item
from umr.search.asking import Avoided, Part, Question, Wanted, ask
from umr.search.changing import Changes, Metadata
from umr.search.filters import Filter
from umr.search.hits import Results
from umr.search.models import Models, dtype_of, template_hash
from umr.search.options import Mode, Options, modalities_of
from umr.search.places import Places
from umr.search.reopening import reopen
from umr.search.rows import Row
from umr.search.searching import Search, Vector
from umr.search.settings import CollectionSettings
from umr.search.stats import Stats
from umr.search.table import Table

if TYPE_CHECKING:
    from umr.evaluation.calibration import Calibration
    from umr.mining.fill import PairScorer
    from umr.protocols import Encoder
    from umr.search.asking import ImageSource, VideoSource

Where: TypeAlias = Filter | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | str | None
"""The forms that `Filter.parse` reads."""
ATTEMPTS = 3
"""How often a search is made when rows go while it runs; what the last one finds stands."""


class Collection:
    """A folder of things that can be found, and the model that finds them.

    Make one with `Collection.open` or `Collection.create`. Several threads may use it at once, and other processes may index meanwhile:
    every search begins with the rows as they are then, and is made again when rows that it has found are gone before they are read.

    Example:
        >>> with Collection.open(Path("photos.umr")) as photos:                              # doctest: +SKIP
        ...     for hit in photos.search("a red boat", where={"year": {"gte": 2020}}, k=5):
        ...         print(hit.score, hit.source)

    Attributes:
        folder: where it is.
        settings: its `collection.json`.
        table: its rows.
    """

    def __init__(
        self,
        folder: Path,
        settings: CollectionSettings,
        table: Table,
        model: Encoder | str | Path | None = None,
        concurrent: bool = False,
    ) -> None:
        self.folder, self.settings, self.table = folder, settings, table
        self._models = Models(folder, settings, model, concurrent)
        self._places = Places(folder, None if settings.root is None else Path(settings.root))
        self._changes = Changes(table, self._places, self._models)

    @classmethod
    def create(
        cls,
        folder: Path | str,
        model: Encoder | str | Path,
        *,
        root: Path | str | None = None,
        instruction: str | None = None,
        model_name: str | None = None,
    ) -> Self:
        """Make an empty collection. To index a folder, `umr index` makes one by itself.

        Args:
            folder: where; must hold none yet.
            model: folder or hub id of an embedder or any SentenceTransformer, or one that is loaded.
            root: folder that the media of its rows lie below.
            instruction: what queries are asked with where a search names none.
            model_name: for a model that is loaded: where `open` will find it. Without, `open` has to be given the model.

        Raises:
            StoreError: there is a collection already.
            ModelError: the model cannot be loaded.
        """
        folder, loaded = Path(folder), model
        if CollectionSettings.exist(folder):
            raise StoreError(f"{folder}: holds a collection already; open it, or choose another folder")
        if isinstance(loaded, str | Path):
            from umr.models.embedder import Embedder

            if model_name is not None:
                raise RecipeError("model_name has no effect on a model that is given by its name; leave it out")
            model_name, loaded = str(model), Embedder.load(loaded)
        settings = CollectionSettings(
            model=model_name or f"a loaded {type(loaded).__name__}",
            fingerprint=loaded.fingerprint,
            dimension=loaded.dimension,
            template_hash=template_hash(loaded),
            dtype="float32" if isinstance(model, str | Path) else dtype_of(model),
            instruction=instruction,
            root=None if root is None else str(Path(root).resolve()),
        )
        from umr.search.lance import LanceTable

        table = LanceTable.create(folder, loaded.dimension)
        settings.write(folder)  # last: a folder without it holds no collection, and can be created again
        return cls(folder, settings, table, loaded)

    @classmethod
    def open(cls, folder: Path | str, model: Encoder | str | Path | None = None, *, concurrent: bool = False) -> Self:
        """Open a collection. The model is loaded when a search or an addition first needs it.

        Args:
            folder: where it is.
            model: the model that made its vectors, or where that is now. Default: where `collection.json` says.
            concurrent: the models that are given may be called by several threads at once; by default they are called by one at a time.

        Raises:
            StoreError: there is no collection, it is damaged, or a given model is another than the one that made its vectors.
        """
        from umr.search.lance import LanceTable

        folder = Path(folder)
        settings = CollectionSettings.read(folder)
        if settings.store is not None:
            raise StoreError(f"{folder}: its rows are in {settings.store}, which this version cannot open")
        return cls(folder, settings, LanceTable.open(folder), model, concurrent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of files and models. What was added is on disk already."""
        if (close := getattr(self.table, "close", None)) is not None:
            close()

    def __len__(self) -> int:
        return self.table.count()

    # --- searching

    def search(
        self,
        query: Wanted | None = None,
        *,
        text: str | None = None,
        image: ImageSource | None = None,
        video: VideoSource | None = None,
        instruction: str | None = None,
        minus: Avoided | Sequence[Avoided] | None = None,
        parts: Sequence[Part] | None = None,
        where: Where = None,
        modalities: str | Sequence[str] | None = None,
        k: int = 10,
        offset: int = 0,
        mode: Mode = "vector",
        depth: int | None = None,
        words_weight: float | None = None,
        reranker: PairScorer | str | Path | None = None,
        rerank_depth: int | None = None,
        rerank_seconds: float | None = None,
        rerank_weight: float | None = None,
        calibration: Calibration | Path | None = None,
        group_by: str | None = None,
        per_group: int | None = None,
    ) -> Results:
        """Find things.

        Args:
            query: text, an `Item`, or a `Query`, which brings its instruction; a text is never taken for a path.
            text, image, video: in place of it. Together they are one composed item.
            instruction: what to find. Default: the collection's; `""` for none.
            minus: what to avoid; see `umr.search.asking.ask`.
            parts: items with weights, embedded one by one and added up.
            where: conditions on metadata and fields; see `umr.search.filters`.
            modalities: only such rows: `text`, `image`, `image,text`, `video`.
            k: results wanted.
            offset: results passed over.
            mode: `"vector"`, `"words"` or `"hybrid"`.
            depth, words_weight: of a hybrid search; see `umr.search.options.Options`, as for everything below.
            reranker: a `Reranker` or where to load one from.
            rerank_depth, rerank_seconds, rerank_weight: how many results it orders anew, for how long, and how much it counts.
            calibration: offsets by modality, or the file that `umr calibrate` wrote.
            group_by: `"source"` or a metadata field, of which each value is found `per_group` times at most.
            per_group: 1 by default.

        Returns:
            At most k hits, best first. The same search on the same rows gives the same hits in the same order, ties by id, and pages are
            slices of one order (unless a time budget runs out, or approximate search looks deeper for a later page).

        Raises:
            RecipeError: nothing to search for, parts that cancel, or a setting that is out of range or would have no effect.
            DataError: a filter that makes no sense.
            ModelError, StoreError: a model that cannot be loaded, or is another than the one that made the vectors.
            MediaError, RenderError: a query that cannot be embedded.
        """
        if mode == "words" and instruction and reranker is None:
            raise RecipeError("instruction has no effect in mode words without a reranker; leave it out")
        question = ask(query, text=text, image=image, video=video, instruction=instruction, minus=minus, parts=parts)
        question = replace(question, instruction=self._instruction(question))
        options = Options(
            k=k,
            offset=offset,
            mode=mode,
            where=Filter.parse(where),
            modalities=modalities_of(modalities),
            depth=depth,
            words_weight=words_weight,
            reranker=None if reranker is None else self._models.reranker(reranker),
            rerank_depth=rerank_depth,
            rerank_seconds=rerank_seconds,
            rerank_weight=rerank_weight,
            calibration=self._calibration(calibration),
            group_by=group_by,
            per_group=per_group,
        )
        options.check(question)
        return self._found(options, question, question.wanted.modality, partial(self._vector, question))

    async def asearch(self, query: Wanted | None = None, **arguments: Any) -> Results:
        """`search`, with the same arguments, in a thread beside the event loop."""
        return await asyncio.to_thread(self.search, query, **arguments)

    def more_like(
        self,
        id: str,
        *,
        where: Where = None,
        modalities: str | Sequence[str] | None = None,
        k: int = 10,
        offset: int = 0,
        group_by: str | None = None,
        per_group: int | None = None,
    ) -> Results:
        """What is nearest to a row, by its stored vector: no model is needed. The row itself is left out.

        Arguments are those of `search`. To ask with the row's item and an instruction, as a query, search for `item(id)`.

        Raises:
            DataError: there is no such row.
        """
        row = self._row(id, vectors=True)
        assert row.vector_D is not None
        vector_D = row.vector_D.astype(np.float32)
        rows, kinds = Filter.parse(where), modalities_of(modalities)
        options = Options(k=k, offset=offset, where=rows, modalities=kinds, group_by=group_by, per_group=per_group)
        return self._found(options, None, row.modality, lambda: vector_D / np.linalg.norm(vector_D), leave_out=id)

    def _found(
        self, options: Options, question: Question | None, asked: str, vector: Callable[[], Vector], leave_out: str | None = None
    ) -> Results:
        for _ in range(ATTEMPTS):
            search = Search(self.table, options, question, vector, self._places.of, asked, leave_out)
            results = search.run()
            if not search.gone:
                break
        return results

    def _vector(self, question: Question) -> Vector:
        encoder = self._models.encoder()
        with self._models.turn():
            return question.vector(encoder)

    def _instruction(self, question: Question) -> str | None:
        chosen = self.settings.instruction if question.instruction is None else question.instruction
        return chosen or None

    def _calibration(self, given: Calibration | Path | None) -> Calibration | None:
        if given is None:
            return None
        from umr.evaluation.calibration import Calibration

        found = given if isinstance(given, Calibration) else Calibration.load(Path(given))
        found.check(self.settings.fingerprint)
        return found

    # --- rows

    def get(self, ids: Sequence[str]) -> list[Row]:
        """Rows in the order asked, without vectors; unknown ids are left out."""
        return self.table.rows(list(ids))

    def media(self, row: Row) -> Path | None:
        """The absolute path of a row's picture, PDF or video; None without one, or where it would lie outside the collection."""
        return self._places.of(row)

    def item(self, id: str) -> Item:
        """What a row was embedded from.

        Raises:
            DataError: there is no such row.
            MediaError: its file is gone or cannot be read.
        """
        row = self._row(id)
        return reopen(row, self.media(row))

    def _row(self, id: str, vectors: bool = False) -> Row:
        found = self.table.rows([id], vectors)
        if not found:
            raise DataError(f"{self.folder}: has no row {id!r}")
        return found[0]

    def stats(self) -> Stats:
        """What the collection holds."""
        return Stats.of(self.settings, self.table)

    # --- changing

    def add(self, items: Sequence[Item], metadata: Metadata = None) -> list[str]:
        """Embed items that come from no file and keep them; those of an id that is there already are replaced.

        Pictures and videos are copied into the collection's folder, unless they lie below its root. An item has one of them at most.
        Items are committed in blocks of 256: when a later block fails, the ones before stay.

        Args:
            items: with ids, or else the hash of the content is the id.
            metadata: fields for all, or a mapping for each item: texts, numbers, true/false, lists of texts.

        Returns:
            Ids in order.

        Raises:
            DataError: an id that occurs twice or belongs to a file, or metadata that cannot be kept.
            MediaError, RenderError: an item that cannot be embedded.
        """
        return self._changes.add(list(items), metadata)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows by id; how many there were. A row of a file that is still there comes back when the file changes."""
        return self._changes.delete(list(ids))

    def judge(self, query: Wanted, id: str, right: bool | None, instruction: str | None = None) -> None:
        """Keep a judgement: that a row answers a query, or does not, or (None) that neither is said any more.

        See `umr.search.judgements`, also for making a benchmark of them.
        """
        from umr.search.judgements import Judgements

        question = ask(query, instruction=instruction)
        Judgements(self.folder).add(question.wanted, self._instruction(question), self._row(id), right)
