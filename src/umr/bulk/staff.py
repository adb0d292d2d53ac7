"""A crew with the model that it loads: helps mining and scoring to embed what they search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from umr.bulk.corpus import Corpus
from umr.bulk.crew import Crew
from umr.bulk.work import Load, Work
from umr.items import Side
from umr.progress import Bar
from umr.protocols import Encoder
from umr.store.embedding import Fetch
from umr.store.vectors import VectorStore


@dataclass(frozen=True)
class Staff:
    """Workers for a model that is loaded here as well.

    Attributes:
        crew: how many, and where.
        load: loads the model in each.
    """

    crew: Crew
    load: Load

    @classmethod
    def of(cls, crew: Crew | None, load: Load) -> Staff | None:
        """None where there are no workers beside this process."""
        return None if crew is None or crew.alone else cls(crew, load)

    def embed(
        self,
        store: VectorStore,
        encoder: Encoder,
        ids: Sequence[str],
        fetch: Fetch,
        side: Side,
        instructions: Sequence[str | None] | None,
        rows: int,
        bar: Bar,
    ) -> bool:
        """Fill a store as `umr.store.embed_into` does, to the same bytes, where that is worth more than one worker.

        Args:
            store: as there, like the arguments that follow.
            encoder: the model.
            ids: of the items.
            fetch: gives them; can be sent to other processes.
            side: of the items.
            instructions: one for each, or None.
            rows: rows a shard.
            bar: advanced by the items done.

        Returns:
            False when nothing was done, since at most one shard is missing.

        Raises:
            UmrError: as of `Crew.fill`.
        """
        corpus = Corpus(ids, fetch, store.source)
        work = Work(store.path.absolute(), encoder.fingerprint, encoder.dimension, self.load, corpus, side, instructions, rows, "fail")
        if work.pieces - store.shards < 2:
            return False
        self.crew.fill(store, work, encoder, bar)
        return True
