"""A process that indexes a folder in small pieces, to be killed: `python index_in_pieces.py FOLDER COLLECTION`.

It writes a dot for every call of the model, so that whoever kills it knows how far it is, and in the end the number of files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from umr.search import block, ingest
from umr.search.lance import LanceTable
from unit.search.seeing_encoder import DIMENSION, SeeingEncoder


class TellingEncoder(SeeingEncoder):
    def encode(self, *arguments: Any) -> Any:
        sys.stdout.write(".")
        sys.stdout.flush()
        return super().encode(*arguments)


def table_of(folder: Path) -> LanceTable:
    return LanceTable.open(folder) if (folder / "files.lance").exists() else LanceTable.create(folder, DIMENSION)


if __name__ == "__main__":
    ingest.BLOCK_FILES, block.BATCH_PIECES = 16, 8
    counts = ingest.index_folder(Path(sys.argv[1]), table_of(Path(sys.argv[2])), TellingEncoder())
    sys.stdout.write(str(counts.files))
