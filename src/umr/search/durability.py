"""What LanceDB leaves to its user: that an acknowledged change survives a power cut, and that writers take turns.

Lance writes new files and never changes old ones, and a version exists when its manifest does. It does not flush any of them
(measured: no fsync in five acknowledged writes), so `Flusher` does it, after a commit and before the commit is acknowledged.
What a power cut may do to versions that were not acknowledged is for `umr.search.healing`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTLED_SECONDS = 600.0
"""A file older than this has been written back by the kernel, which waits half a minute at most by default."""

_IN_PLACE = "latest_version_hint.json"
"""The one file that changes; a hint that Lance does without."""


class Flusher:
    """Makes sure that everything a table's commits have written is on the disk.

    Files that another process has written and not flushed, since it was killed, are flushed too: the next version stands on them.

    Args:
        tables: folders of Lance tables.
    """

    def __init__(self, *tables: Path) -> None:
        self._tables = tables
        settled = time.time() - SETTLED_SECONDS
        self._known = {path for _, paths in self._walk() for path in paths if _modified(path) < settled}

    def flush(self) -> int:
        """Flush all new files, and then the folders that name them; how many of both."""
        flushed = 0
        seen: set[str] = set()
        named: set[str] = set()
        for folder, paths in self._walk():
            new = paths - self._known
            flushed += sum(_flush(path) for path in new)
            seen |= paths
            if new:
                named.update((folder, str(Path(folder).parent)))  # the folder may be new as well
        self._known = seen
        return flushed + sum(_flush(folder) for folder in sorted(named))

    def _walk(self) -> Iterator[tuple[str, set[str]]]:
        for table in self._tables:
            for folder, _, names in os.walk(table):
                yield folder, {f"{folder}/{name}" for name in names if name != _IN_PLACE}


def flush_folder(folder: Path) -> None:
    """Make files that were created or renamed in `folder` keep their names after a power cut."""
    _flush(str(folder))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for other processes and threads that do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _modified(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _flush(path: str) -> int:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # a temporary file, or one that another process has cleaned up
        return 0
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return 1
