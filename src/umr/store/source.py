"""A label of the data that a store is made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from umr.data.fingerprint import fingerprint
from umr.items import Item, Text
from umr.store.embedding import Fetch

_SAMPLED_MEDIA = 256


def data_label(paths: Sequence[Path], root: Path, count: int, fetch: Fetch, *more: str) -> str:
    """Hash over the contents of a corpus' files, and the sizes of some of its images and videos.

    Regenerated data can have the same file names with other pictures, which the files of records do not show.

    Args:
        paths: the files of records.
        root: folder that their names are taken relative to.
        count: number of items.
        fetch: gives the items of a range of positions.
        more: whatever else decides what is embedded.
    """
    rows = np.unique(np.linspace(0, max(count - 1, 0), _SAMPLED_MEDIA).astype(int))
    sizes = [_media_sizes(item) for row in rows for item in fetch(int(row), int(row) + 1)]
    return short_hash(fingerprint(paths, root), repr(sizes), *more)


def short_hash(*parts: str) -> str:
    """Sixteen hexadecimal digits."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def _media_sizes(item: Item) -> list[int]:
    sources = [part.source for part in item.parts if not isinstance(part, Text)]
    return [source.stat().st_size if source.is_file() else -1 for source in sources if isinstance(source, Path)]
