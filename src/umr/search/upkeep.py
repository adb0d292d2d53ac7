"""Keeping a Lance table quick: its indexes, and its many small files made few.

All of it goes by counts, not by time: rows that no index covers are gone through one by one, and every commit adds a file.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

INDEX_ROWS = 10_000
"""Rows that may be without index; up to here a search by words takes some 30 ms longer."""
SHARE = 8
"""Nor is anything rewritten before one row in so many is new: a table that grows is rewritten a few times, not thousands."""
SMALL_FILES = 400
KEPT = timedelta(hours=1)
"""How long versions are kept that a reader may still be reading, or that healing may go back to."""
_EVER = timedelta(days=36500)

WORDS = "text"
"""The column that is searched by words."""


def make_index(table: Any, column: str) -> None:
    """Make the index of a column: of words for `WORDS`, else for looking rows up.

    Words are found by Unicode's rules, whatever the language, and none is left out; English endings are cut.
    """
    from lancedb.index import FTS, BTree

    config = FTS(base_tokenizer="icu", remove_stop_words=False) if column == WORDS else BTree()
    table.create_index(column, config=config, replace=True)


def tidy(table: Any, keys: tuple[str, ...], flush: Callable[[], object], *, now: bool = False) -> bool:
    """Bring indexes up to date and join small files, where enough has changed; whether it was done.

    Args:
        table: of LanceDB.
        keys: columns that rows are looked up by; they are indexed once the table is large enough for it to matter.
        flush: brings what was written to the disk.
        now: after a bulk load: for a tenth of the usual changes.
    """
    rows, small = table.count_rows(), table.stats()["fragment_stats"]["num_small_fragments"]
    indexes = {index.columns[0]: index for index in table.list_indices()}
    behind = max((index.num_unindexed_rows for index in indexes.values()), default=0)
    lacking = [key for key in keys if key not in indexes and rows >= INDEX_ROWS]
    few = 10 if now else 1
    if not lacking and behind < max(INDEX_ROWS, rows // SHARE) // few and small < SMALL_FILES // few:
        return False
    for key in lacking:
        make_index(table, key)
    table.optimize(cleanup_older_than=_EVER)
    flush()  # what was joined must be on the disk before the files it was joined from are removed
    table.optimize(cleanup_older_than=KEPT)
    return True
