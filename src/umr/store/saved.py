"""What a long search has done so far, on disk, so that an interrupted one goes on where it was.

    <folder>/<label>/scan-<first>-<last>.npz     lists of a pass that is on its way, every few minutes
    <folder>/<label>/found-<first>-<last>.npz    rankings of a pass that is done

`<label>` is a hash of vectors, pools and depth. A search shorter than `SECONDS` writes nothing.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from umr.errors import StoreError
from umr.store.asked import Places
from umr.store.best import Keys, Scores
from umr.store.passes import Range

SECONDS = 300.0


@dataclass(frozen=True)
class Scan:
    """A pass on its way.

    Attributes:
        done: place in the stream before which all has been seen.
        longest: length of the longest candidate so far.
        rounding: the most that rounding to bfloat16 took from a candidate; 0 where none was rounded.
        best: lists by query range and pool.
    """

    done: int
    longest: float
    rounding: float
    best: list[Keys]


class Saved:
    """The folder of one search.

    Args:
        folder: where searches are kept.
        label: changes with everything that decides on the result.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self._folder = Path(folder) / label
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._last >= SECONDS

    def missing(self, queries: int) -> list[Range]:
        """Ranges of queries that have not been searched for; a pass that was interrupted is one of its own."""
        gaps, at = list[Range](), 0
        for first, last in [*sorted(self._ranges("found")), (queries, queries)]:
            if at < first:
                gaps.append((at, first))
            at = max(at, last)
        cut = list[Range]()
        for start, stop in gaps:
            inside = {edge for first, last in self._ranges("scan") if start <= first < last <= stop for edge in (first, last)}
            edges = sorted({start, stop, *inside})
            cut += pairwise(edges)
        return cut

    def finished(self) -> Iterator[tuple[Range, list[tuple[Places, Scores]]]]:
        """Queries and rankings of every pass that is done."""
        for queries in sorted(self._ranges("found")):
            arrays = self._read("found", queries)
            yield queries, [(arrays[f"rows{n}"], arrays[f"scores{n}"]) for n in range(len(arrays) // 2)]

    def finish(self, queries: Range, parts: Sequence[tuple[Places, Scores]]) -> None:
        """Keep the rankings of a pass, if it took long enough to be worth it."""
        scan = self._path("scan", queries)
        if self.due() or scan.exists():
            named: dict[str, npt.NDArray[Any]] = {f"rows{n}": rows_QK for n, (rows_QK, _) in enumerate(parts)}
            self._write("found", queries, named | {f"scores{n}": scores_QK for n, (_, scores_QK) in enumerate(parts)})
            scan.unlink(missing_ok=True)

    def keep(self, queries: Range, scan: Scan) -> None:
        """Keep the lists of a pass."""
        named = {f"best{n}": keys for n, keys in enumerate(scan.best)}
        about = {"done": np.array(scan.done), "longest": np.array(scan.longest), "rounding": np.array(scan.rounding)}
        self._write("scan", queries, about | named)

    def scan(self, queries: Range) -> Scan | None:
        """The lists of a pass that was interrupted."""
        if not self._path("scan", queries).exists():
            return None
        arrays = self._read("scan", queries)
        done, longest, rounding = (arrays.pop(name, np.array(0)) for name in ("done", "longest", "rounding"))  # older ones never rounded
        return Scan(int(done), float(longest), float(rounding), [arrays[f"best{n}"] for n in range(len(arrays))])

    def tidy(self) -> None:
        """Delete lists of passes that were cut otherwise later on; everything is found."""
        for path in self._folder.glob("scan-*.npz"):
            path.unlink()

    def _ranges(self, kind: str) -> list[Range]:
        names = [re.fullmatch(rf"{kind}-(\d+)-(\d+)\.npz", path.name) for path in self._folder.glob(f"{kind}-*.npz")]
        return [(int(name[1]), int(name[2])) for name in names if name]

    def _path(self, kind: str, queries: Range) -> Path:
        return self._folder / f"{kind}-{queries[0]}-{queries[1]}.npz"

    def _read(self, kind: str, queries: Range) -> dict[str, npt.NDArray[Any]]:
        path = self._path(kind, queries)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise StoreError(f"{path}: damaged ({error}); delete it and search again") from error

    def _write(self, kind: str, queries: Range, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Straight to a temporary file, since a copy in memory would count, then renamed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path(kind, queries))
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            raise StoreError(f"{self._folder}: cannot be written ({error.strerror}); make room or choose another folder") from error
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._last = time.monotonic()
