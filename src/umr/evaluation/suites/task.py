"""What a zero-shot suite asks: items by id, made when they are needed, and the tasks that search among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from umr.errors import DataError
from umr.evaluation.suites.protocols import Protocol
from umr.items import Item, Text

Make = Callable[[int], Item]


@dataclass(frozen=True)
class Items:
    """Queries or candidates in order.

    Attributes:
        name: of their vectors' folder, such as `"images"`; two collections of a suite with different items have different names.
        ids: unique.
        make: the item of a place; cheap as long as its media are only named.
        files: the media files behind a place, where the item itself does not name them, such as a part cut out of a picture.

    Raises:
        DataError: an id is there twice.
    """

    name: str
    ids: tuple[str, ...]
    make: Make
    files: Callable[[int], Sequence[Path]] | None = None

    def __post_init__(self) -> None:
        if len(set(self.ids)) < len(self.ids):
            twice = Counter(self.ids).most_common(1)[0][0]
            raise DataError(f"{self.name}: id {twice!r} is there twice; remove one of the two records")

    def __len__(self) -> int:
        return len(self.ids)

    def fetch(self, start: int, stop: int) -> list[Item]:
        """The items of some places."""
        return [self.make(place) for place in range(start, stop)]

    def media(self, place: int) -> list[Path]:
        """The files that the item of a place needs."""
        if self.files is not None:
            return list(self.files(place))
        sources = [part.source for part in self.make(place).parts if not isinstance(part, Text)]
        return [source for source in sources if isinstance(source, Path)]

    def missing(self) -> Iterator[tuple[int, Path]]:
        """Places whose media are not there, each with the first file that is missing."""
        for place in range(len(self)):
            gone = next((path for path in self.media(place) if not path.is_file()), None)
            if gone is not None:
                yield place, gone

    def only(self, places: Sequence[int]) -> Items:
        """These places alone."""
        files = self.files
        return Items(
            self.name,
            tuple(self.ids[place] for place in places),
            lambda place: self.make(places[place]),
            None if files is None else lambda place: files(places[place]),
        )


@dataclass(frozen=True)
class Task:
    """One search of a suite.

    Attributes:
        name: such as `"text -> image"`.
        queries: what is searched with.
        candidates: what is searched.
        protocol: who is right, and what is measured.
        instruction: what the suite's own files say; else that of `umr.evaluation.suites.wordings` is used.
    """

    name: str
    queries: Items
    candidates: Items
    protocol: Protocol
    instruction: str | None = None

    def without(self, queries: set[int], candidates: set[int]) -> Task:
        """The task without some places, and without queries of which no right answer is left."""
        here = self.candidates.only([place for place in range(len(self.candidates)) if place not in candidates])
        known = set(here.ids)
        kept = [place for place, qid in enumerate(self.queries.ids) if place not in queries and self.protocol.is_answerable(qid, known)]
        return replace(self, queries=self.queries.only(kept), candidates=here)


@dataclass(frozen=True)
class Suite:
    """The tasks of one folder.

    Attributes:
        name: as on the command line.
        root: the folder.
        source: where its files come from, in a few words.
        files: annotations, which decide what is asked; images are not among them.
        tasks: in the order of reports.
        main: the metric that published tables show.
        averages: names of tasks whose plain mean of `main` is reported, by name of the mean.
    """

    name: str
    root: Path
    source: str
    files: tuple[Path, ...]
    tasks: tuple[Task, ...]
    main: str
    averages: dict[str, tuple[str, ...]] = field(default_factory=dict)
