"""Reading mined negatives by query."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from umr.data.fingerprint import fingerprint
from umr.data.ids import pack
from umr.errors import DataError
from umr.mining.tables import FORMAT, NEGATIVES

METRICS = ("cosine", "rank")
MARK = "mining.json"
"""The file whose presence says that mining is finished."""


class NegativeTable:
    """What `mine` kept: for each query at most k ids, hardest first. Short lists are short, never filled up.

    Args:
        path: the folder that `mine` wrote.

    Attributes:
        metric: `"cosine"`, or `"rank"` for rankings of a system whose scores were not declared.
        model: fingerprint of the model that found them.
        data: fingerprint of the training data.

    Raises:
        DataError: no finished mining there, another format, a metric that is not declared, or a damaged file.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        file = self.path / NEGATIVES
        if not (self.path / MARK).is_file():
            raise DataError(f"{self.path}: holds no finished mining ({MARK} is missing); run `umr mine` again, it goes on where it stopped")
        try:
            about = {key.decode(): value.decode() for key, value in (pq.read_schema(file).metadata or {}).items()}
            if about.get("metric") not in METRICS:
                raise DataError(f"{file}: does not declare its metric ({about.get('metric')!r}); mine again")
            if about.get("format") != FORMAT:
                raise DataError(f"{file}: format {about.get('format')}, but this version reads format {FORMAT}; mine again")
            table = pq.read_table(file, columns=["qid", "negatives"])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: cannot be read ({' '.join(str(error).split())}); mine again") from error
        self.metric, self.model, self.data = about["metric"], about.get("model", ""), about.get("data", "")
        self._qids, self._negatives = table["qid"], table["negatives"]
        keys_Q = np.fromiter((pack(qid) for chunk in self._qids.chunks for qid in chunk.to_pylist()), np.uint64, len(table))
        self._order_Q = np.argsort(keys_Q, kind="stable")
        self._keys_Q = keys_Q[self._order_Q]

    @cached_property
    def fingerprint(self) -> str:
        """Hash over the file, 32 hexadecimal digits."""
        return fingerprint([self.path / NEGATIVES], self.path)

    def __len__(self) -> int:
        """Queries with at least one negative."""
        return sum(int(np.count_nonzero(np.diff(chunk.offsets))) for chunk in self._negatives.chunks)

    def of(self, qid: str) -> tuple[str, ...]:
        """Ids of the negatives of a query, hardest first; `()` for a query that has none or was not mined."""
        place = int(np.searchsorted(self._keys_Q, np.uint64(pack(qid))))
        if place == len(self._keys_Q) or int(self._keys_Q[place]) != pack(qid):
            return ()
        row = int(self._order_Q[place])
        return tuple(self._negatives[row].as_py()) if self._qids[row].as_py() == qid else ()

    def about(self) -> dict[str, object]:
        """What `mining.json` says: settings, fingerprints and counts."""
        content: dict[str, object] = json.loads((self.path / MARK).read_text("utf-8"))
        return content
