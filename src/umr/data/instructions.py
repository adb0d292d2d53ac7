"""The instructions of a benchmark: several wordings for each kind of search, and which one a query gets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from umr.data.mbeir_records import modality_of, normalise_text
from umr.errors import DataError


class Instructions:
    """The wordings in `query_instructions.tsv`.

    The first line is a header. Columns: query modality, candidate modality, dataset name, dataset id, then the wordings;
    empty cells are passed over. Wordings are normalised (`normalise_text`).

    Args:
        path: the file.

    Attributes:
        datasets: names of datasets by id, as the file spells them.

    Raises:
        DataError: missing file or malformed line, with file and line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.datasets: dict[int, str] = {}
        self._wordings: dict[tuple[int, str, str], tuple[str, ...]] = {}
        try:
            lines = path.read_text("utf-8").split("\n")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not valid UTF-8 ({error.reason})") from error
        for number, line in enumerate(lines[1:], 2):
            if line.strip():
                self._add(line, f"{path}:{number}")

    def __len__(self) -> int:
        return len(self._wordings)

    def find(self, dataset: int, query_modality: str, candidate_modality: str) -> tuple[str, ...]:
        """All wordings for a search. Raises `DataError` when there are none.

        Args:
            dataset: dataset id, the part of a qid before the colon.
            query_modality: such as `"image,text"`.
            candidate_modality: the modality that is looked for.
        """
        found = self._wordings.get((dataset, query_modality, candidate_modality))
        if found is None:
            raise DataError(f"{self.path}: has no instruction for dataset {dataset}, {query_modality} -> {candidate_modality}; add a line")
        return found

    def _add(self, line: str, where: str) -> None:
        cells = line.split("\t")
        if len(cells) < 5:
            raise DataError(f"{where}: needs at least 5 tab-separated columns, has {len(cells)}")
        query, candidate = modality_of(cells[0]), modality_of(cells[1])
        if query is None or candidate is None:
            raise DataError(f"{where}: unknown modality {(cells[0] if query is None else cells[1])!r}")
        try:
            key = int(cells[3]), query, candidate
        except ValueError:
            raise DataError(f"{where}: the dataset id in column 4 must be a whole number, not {cells[3]!r}") from None
        wordings = tuple(text for text in map(normalise_text, cells[4:]) if text)
        if not wordings:
            raise DataError(f"{where}: has no instruction")
        if key in self._wordings:
            raise DataError(f"{where}: dataset {key[0]}, {query} -> {candidate} has a line already")
        self._wordings[key] = wordings
        self.datasets.setdefault(key[0], cells[2])


def choose(wordings: Sequence[str], qid: str, seed: int | None = None, epoch: int = 0) -> str | None:
    """The wording a query gets; `None` if there is none.

    Args:
        wordings: what to choose from.
        qid: id of the query.
        seed: `None` takes the first wording, as pyserini does; a number draws one by a hash of seed, qid and epoch, the
            same on every machine and in any order of queries.
        epoch: counts passes over the training data.
    """
    if not wordings:
        return None
    if seed is None:
        return wordings[0]
    drawn = hashlib.blake2b(f"{seed}\0{qid}\0{epoch}".encode(), digest_size=8).digest()
    return wordings[int.from_bytes(drawn, "little") % len(wordings)]
