"""What became of every file: numbers, reasons, and the whole list as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from umr import files
from umr.errors import StoreError
from umr.search.rows import SourceFile

NAME = "report.json"
"""In the collection's folder."""


@dataclass(frozen=True)
class Report:
    """The files of a collection.

    Attributes:
        indexed: files that gave rows, or told something about one that did.
        rejected: files that gave nothing, each with its reason.
    """

    indexed: tuple[SourceFile, ...]
    rejected: tuple[SourceFile, ...]

    @classmethod
    def of(cls, records: Iterable[SourceFile]) -> Report:
        """Sort records by what became of them; their order stays."""
        everything = tuple(records)
        return cls(
            tuple(record for record in everything if record.status == "indexed"),
            tuple(record for record in everything if record.status == "rejected"),
        )

    @property
    def partly(self) -> tuple[SourceFile, ...]:
        """Indexed files of which a part was left out."""
        return tuple(record for record in self.indexed if record.reason)

    def reasons(self) -> list[tuple[str, int]]:
        """Why files were rejected, and how many; the most frequent first."""
        return sorted(Counter(record.reason for record in self.rejected).items(), key=lambda pair: (-pair[1], pair[0]))

    def write(self, path: Path) -> None:
        """Write everything as JSON, whole or not at all.

        Raises:
            StoreError: the file cannot be written.
        """
        content = {
            "files": len(self.indexed) + len(self.rejected),
            "indexed": len(self.indexed),
            "rejected": len(self.rejected),
            "rows": sum(record.rows for record in self.indexed),
            "reasons": dict(self.reasons()),
            "rejected_files": [{"path": record.path, "reason": record.reason} for record in self.rejected],
            "indexed_files": [
                {"path": record.path, "rows": record.rows} | ({"left_out": record.reason} if record.reason else {})
                for record in self.indexed
            ],
        }
        try:
            files.write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
