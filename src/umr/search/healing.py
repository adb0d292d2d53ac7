"""Making a collection whole again whose tables a power cut has damaged.

Whatever was acknowledged is on the disk (`umr.search.durability`), but a version that was being written may be torn: LanceDB
then cannot open the table at all, or opens it and fails when a search reads the rows, or takes a manifest of zeros for an
empty table.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from umr.errors import StoreError
from umr.search import manifests
from umr.search.durability import Flusher
from umr.search.lance_rows import one_of
from umr.search.upkeep import make_index

logger = logging.getLogger("umr.search")


def damaged(table: Path) -> bool:
    """Whether rows of the newest version of a table cannot be read, or one of its indexes."""
    newest = manifests.versions(table)[:1]
    try:
        found = [manifests.read(table, manifest) for _, manifest in newest]
    except FileNotFoundError:  # another process is healing it at this moment
        return True
    return not found or any(contents is None or not contents.readable or bool(contents.lost_indexes) for contents in found)


def heal(db: Any, folder: Path, rows: str, records: str) -> None:
    """Heal the tables of a collection; nobody else may be writing to them.

    Files whose rows are not as many as is recorded are then taken for never looked at, so that indexing again brings them back.

    Args:
        db: a connection to LanceDB.
        folder: where its tables are.
        rows: name of the table of rows.
        records: name of the table of files.

    Raises:
        StoreError: no version of a table is whole, or the folder cannot be written.
    """
    went_back = [_heal_table(db, folder / f"{name}.lance", name) for name in (rows, records) if damaged(folder / f"{name}.lance")]
    if any(went_back):
        sources = db.open_table(rows).search().select(["source"]).to_batches().read_all()["source"].value_counts()
        real = {count["values"]: count["counts"] for count in sources.to_pylist()}
        table = db.open_table(records)
        recorded = table.search().select(["path", "rows"]).to_batches().read_all().to_pylist()
        if wrong := [record["path"] for record in recorded if real.get(record["path"], 0) != record["rows"]]:
            table.delete(one_of("path", wrong))
    Flusher(*(folder / f"{name}.lance" for name in (rows, records))).flush()


def _heal_table(db: Any, table: Path, name: str) -> bool:
    """Heal one table; whether it went back to an older version.

    The newest version whose rows are all there becomes the newest of all. Torn manifests are kept beside where they were as
    `.damaged`, and numbers go on from the highest that was there, so that nothing derived from a version that is gone can pass
    for current.
    """
    found = [(version, path, manifests.read(table, path)) for version, path in manifests.versions(table)]
    good = next((version for version, _, contents in found if contents is not None and contents.readable), None)
    if good is None:
        raise StoreError(
            f"{table}: damaged, and no older version is whole; restore it from a copy, or delete the collection and index again"
        )
    highest = found[0][0]
    try:
        for _, path, contents in found:
            if contents is None:
                path.rename(path.with_name(path.name + ".damaged"))
        opened = db.open_table(name)
        if good < highest:
            logger.warning(
                "%s: version %d is damaged (a power cut?), so version %d stands; index again to add what is missing", table, highest, good
            )
            _go_back(opened, good, highest)
        _mend_indexes(opened, table)
    except (OSError, RuntimeError) as error:
        raise StoreError(f"{table}: damaged, and going back to version {good} of {highest} failed ({error})") from error
    return good < highest


def _go_back(opened: Any, good: int, highest: int) -> None:
    opened.checkout(good)
    opened.restore()
    while opened.version <= highest:
        opened.checkout(opened.version)
        opened.restore()


def _mend_indexes(opened: Any, table: Path) -> None:
    contents = manifests.read(table, manifests.versions(table)[0][1])
    for name in contents.lost_indexes if contents else ():
        (column,) = {index.columns[0] for index in opened.list_indices() if index.name == name}
        logger.warning("%s: the index of %r is damaged (a power cut?) and is made again", table, column)
        opened.drop_index(name)
        make_index(opened, column)
