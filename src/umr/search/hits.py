"""What a search gives back: hits in order, each with its scores at every stage, and how the order came about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

from umr.items import Item
from umr.search.reopening import reopen
from umr.search.rows import Row

Stage: TypeAlias = Literal["cosine", "calibrated", "words", "fused", "rerank"]


@dataclass(frozen=True)
class Hit:
    """One thing that was found.

    Attributes:
        row: what the collection keeps of it, without its vector.
        rank: place in the whole order, from 1; with an offset the first hit of a page is at offset + 1.
        score: what decided its place among the hits of its stage.
        stage: which stage decided: hits that were reranked come before those that were not, and their scores cannot be compared.
        scores: by stage, as far as the hit went through it: `cosine`; `calibrated`, cosine with the offset of its modality;
            `words`, BM25; `fused`, reciprocal ranks; `rerank`, P(Yes).
        media: absolute path of its picture, PDF or video; None where there is none, or none inside the collection.
    """

    row: Row
    rank: int
    score: float
    stage: Stage
    scores: Mapping[str, float]
    media: Path | None = None

    @property
    def id(self) -> str:
        """Of the row."""
        return self.row.id

    @property
    def source(self) -> str:
        """File below the collection's root that it comes from."""
        return self.row.source

    @property
    def modality(self) -> str:
        """What was embedded: `text`, `image`, `image,text` or `video`."""
        return self.row.modality

    @property
    def text(self) -> str:
        """Caption, chunk, or a page's text layer; `""` without."""
        return self.row.text

    @property
    def page(self) -> int | None:
        """From 1; None where there are no pages."""
        return self.row.page

    @property
    def start(self) -> float | None:
        """Seconds into a video, characters into a text file."""
        return self.row.start

    @property
    def end(self) -> float | None:
        """As `start`."""
        return self.row.end

    @property
    def thumbnail(self) -> bytes:
        """A small WebP; `b""` without."""
        return self.row.thumbnail

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The user's own fields."""
        return self.row.metadata

    def to_item(self) -> Item:
        """The item that was embedded, opened again from its file; see `umr.search.reopening`.

        Raises:
            MediaError: the file is gone or cannot be read.
        """
        return reopen(self.row, self.media)

    def to_json(self) -> dict[str, Any]:
        """Everything but the thumbnail, as JSON has it; what is not there is left out."""
        about: dict[str, Any] = {"id": self.id, "rank": self.rank, "score": self.score, "stage": self.stage, "scores": dict(self.scores)}
        about |= {"source": self.source, "modality": self.modality, "text": self.text}
        if self.media is not None:
            about["media"] = str(self.media)
        about |= {name: value for name in ("page", "start", "end") if (value := getattr(self, name)) is not None}
        return {**about, "metadata": dict(self.metadata)}


@dataclass(frozen=True)
class Results(Sequence[Hit]):
    """The hits of one page, best first.

    Attributes:
        hits: at most k.
        order: one line that says what the order is.
        reranked: how many results of the whole order were reranked, from the first on.
        notes: lines about what went differently than asked for: a time budget that was spent, a file that cannot be opened.
        seconds: wall time by stage.
    """

    hits: tuple[Hit, ...]
    order: str
    reranked: int = 0
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]

    @property
    def ids(self) -> list[str]:
        """Ids of the hits in order."""
        return [hit.id for hit in self.hits]

    def to_json(self) -> dict[str, Any]:
        """Everything but thumbnails, as JSON has it."""
        hits = [hit.to_json() for hit in self.hits]
        return {"hits": hits, "order": self.order, "reranked": self.reranked, "notes": list(self.notes), "seconds": dict(self.seconds)}
