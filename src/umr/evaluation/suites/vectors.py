"""The vectors of a suite on disk, made once for a model and its data.

    <work_dir>/vectors/<model>/suites/<suite>-<name of the items>-<query|candidate>-<data>/

`<model>` and `<data>` are short hashes: of the encoder's fingerprint; of the annotation files, ids, instruction, and of what some of the
items hold, so that other pictures under the same names are seen.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from umr.evaluation.suites.task import Items
from umr.items import Side
from umr.progress import Bar
from umr.protocols import Encoder
from umr.store import VectorStore, embed_into

_SAMPLED = 256


class SuiteVectors:
    """Makes and finds the vectors of one model for one suite.

    Args:
        encoder: the model.
        suite: name of the suite.
        data: fingerprint of its annotations.
        work_dir: folder for the stores.

    Attributes:
        folder: what is kept of this model.
    """

    def __init__(self, encoder: Encoder, suite: str, data: str, work_dir: Path) -> None:
        self._encoder, self._suite, self._data = encoder, suite, data
        self.folder = Path(work_dir) / "vectors" / _hash(encoder.fingerprint) / "suites"

    def embed(self, items: Items, side: Side, instruction: str | None, bar: Bar) -> VectorStore:
        """Embed items, from wherever an earlier run stopped.

        Args:
            items: queries or candidates.
            side: which of them.
            instruction: of all queries.
            bar: advanced by the number of items.
        """
        source = _hash(self._data, "\n".join(items.ids), repr(instruction), *_contents(items))
        store = VectorStore.create_or_resume(
            self.folder / f"{self._suite}-{items.name}-{side}-{source}",
            fingerprint=self._encoder.fingerprint,
            dimension=self._encoder.dimension,
            side=side,
            source=source,
        )
        instructions = None if instruction is None else [instruction] * len(items)
        embed_into(store, self._encoder, items.ids, items.fetch, side, instructions, bar=bar)
        return store


def _contents(items: Items) -> list[str]:
    """Texts of some items, and sizes of their files."""
    places = np.unique(np.linspace(0, max(len(items) - 1, 0), _SAMPLED).astype(int))
    return [
        repr((items.make(int(place)).text, [path.stat().st_size if path.is_file() else -1 for path in items.media(int(place))]))
        for place in places
    ]


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
