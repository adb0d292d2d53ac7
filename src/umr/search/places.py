"""Where the media of rows are, and the refusal of every path that leads out of there."""

from __future__ import annotations

import os
from pathlib import Path

from umr.search.rows import Row
from umr.search.walk import real, shown

OWN = "/"
"""Media that begin so lie below the collection's own folder: those of items that came from no file. A path below the root never does."""


class Places:
    """The two folders that media of a collection may lie in.

    Args:
        folder: the collection's own.
        root: the folder that was indexed; None where there is none.
    """

    def __init__(self, folder: Path, root: Path | None) -> None:
        self.folder = folder.resolve()
        self.root = None if root is None else root.resolve()

    def of(self, row: Row) -> Path | None:
        """The absolute path of a row's media; None without, and where links or dots lead out of the folder. Need not exist."""
        base = self.folder if row.media.startswith(OWN) else self.root
        if not row.media or base is None or "\0" in row.media:
            return None
        path = (base / real(row.media.lstrip("/"))).resolve()
        return path if path.is_relative_to(base) and path != base else None

    def below_root(self, path: Path) -> str | None:
        """How a row names a file below the root; None for files elsewhere."""
        if self.root is None:
            return None
        path = path.resolve()
        return shown(os.fsencode(path.relative_to(self.root))) if path.is_relative_to(self.root) else None
