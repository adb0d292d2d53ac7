"""Adding items that come from no file, and removing rows, with the media that are kept for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from umr.errors import DataError
from umr.items import Item
from umr.search.adding import MEDIA, Prepared, keep, prepare
from umr.search.durability import locked
from umr.search.models import Models
from umr.search.places import OWN, Places
from umr.search.rows import Row
from umr.search.table import Table

Metadata: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
AT_ONCE = 256
"""Items that are embedded and committed together."""


class Changes:
    """What changes the rows of a collection that come from no file.

    Additions and deletions take turns, in all processes, so that none removes a medium that another has just written.

    Args:
        table: of the rows.
        places: where media are.
        models: what embeds.
    """

    def __init__(self, table: Table, places: Places, models: Models) -> None:
        self._table, self._places, self._models = table, places, models

    def add(self, items: Sequence[Item], metadata: Metadata) -> list[str]:
        """See `Collection.add`."""
        fields = [metadata or {}] * len(items) if metadata is None or isinstance(metadata, Mapping) else list(metadata)
        if len(fields) != len(items):
            raise DataError(f"{len(fields)} mappings of metadata for {len(items)} items; give one, or one for each")
        ids: list[str] = []
        for start in range(0, len(items), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            ids += self._add([prepare(*one, self._places) for one in zip(items[some], fields[some], strict=True)], set(ids))
        return ids

    def _add(self, prepared: Sequence[Prepared], before: set[str]) -> list[str]:
        ids = [one.row.id for one in prepared]
        if twice := next((id for place, id in enumerate(ids) if id in before or id in ids[:place]), None):
            raise DataError(f"item {twice}: occurs twice; ids must differ")
        encoder = self._models.encoder()
        with self._models.turn():
            vectors_ND = encoder.encode([one.item for one in prepared]).astype(np.float16)
        rows = [replace(one.row, vector_D=vector_D) for one, vector_D in zip(prepared, vectors_ND, strict=True)]
        with self._turn():
            replaced = self._table.rows(ids)
            if of_file := next((row for row in replaced if row.source), None):
                raise DataError(f"item {of_file.id}: the file {of_file.source} has a row of this id; choose another")
            for one in prepared:
                keep(one, self._places)
            self._table.add(rows)
            self._forget_media(replaced, {row.media for row in rows})
        return ids

    def delete(self, ids: Sequence[str]) -> int:
        """See `Collection.delete`."""
        with self._turn():
            rows = self._table.rows(ids)
            count = self._table.delete(ids)
            self._forget_media(rows, set())
        return count

    def _forget_media(self, rows: Sequence[Row], but: set[str]) -> None:
        """Remove the media of rows that are gone; last, so that no row ever points at a file that is not there."""
        for row in rows:
            if row.media.startswith(OWN) and row.media not in but and (path := self._places.of(row)) is not None:
                path.unlink(missing_ok=True)

    def _turn(self) -> AbstractContextManager[None]:
        return locked(self._places.folder / MEDIA / ".lock")
