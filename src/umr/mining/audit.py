"""What mining did, counted from the tables that it wrote, a row group at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from umr.mining.filters import BY_CONTENT, BY_ID, BY_QRELS, KEPT, NOT_DRAWN, REASONS
from umr.mining.limits import ARROW
from umr.mining.tables import AUDIT, NEGATIVES

BINS = 60
LIKELIEST = 30
_RIGHT = [REASONS[code] for code in (BY_ID, BY_QRELS, BY_CONTENT)]
_NOT_DROPPED = [*_RIGHT, REASONS[KEPT], REASONS[NOT_DRAWN]]


@dataclass
class Queries:
    """How the queries of a setting fared.

    Attributes:
        all: of them.
        with_negatives: those with at least one.
        negatives: of all of them together.
        without_positive_score: those that the relative filter and the margin could not judge.
    """

    all: int = 0
    with_negatives: int = 0
    negatives: int = 0
    without_positive_score: int = 0


class Kind(NamedTuple):
    """Candidates that are counted together; `set` is empty for those in none."""

    setting: str
    pool: str
    query_modality: str
    modality: str
    set: str
    reason: str

    @property
    def pair(self) -> str:
        """Such as `"text->image"`."""
        return f"{self.query_modality}{ARROW}{self.modality}"


@dataclass(frozen=True)
class Suspect:
    """A kept candidate that may be right: the nearest one to its query's positive."""

    qid: str
    did: str
    setting: str
    pool: str
    rank: int | None
    score: float
    positive_score: float | None


@dataclass
class Summary:
    """The counts of a whole mining run.

    Attributes:
        metric: of the scores.
        queries: by setting.
        counts: candidates of each kind.
        edges: of the histograms' bins, (BINS + 1,).
        histograms: counts by bin, (BINS,), of the scores of `"positives"` (the best one a query), and of candidates that were
            `"kept"` and `"dropped"` (by a filter, not for being right or for not being drawn).
        suspects: the likeliest false negatives, at most one a query, likeliest first.
    """

    metric: str
    queries: dict[str, Queries] = field(default_factory=dict)
    counts: Counter[Kind] = field(default_factory=Counter)
    edges: npt.NDArray[np.float64] = field(default_factory=lambda: np.linspace(0, 1, BINS + 1))
    histograms: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    suspects: list[Suspect] = field(default_factory=list)


def summarise(folder: Path, metric: str) -> Summary:
    """Go through both tables of a folder twice: for the range of the scores, then for everything else."""
    summary = Summary(metric)
    with pq.ParquetFile(folder / NEGATIVES) as negatives, pq.ParquetFile(folder / AUDIT) as audit:
        low, high = 1.0, -1.0
        for file, column in ((audit, "score"), (negatives, "positive_score")):
            for group in range(file.num_row_groups):
                values = _numbers(file.read_row_group(group, columns=[column])[column])
                if len(values):
                    low, high = min(low, float(values.min())), max(high, float(values.max()))
        summary.edges = np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, BINS + 1)
        summary.histograms = {name: np.zeros(BINS, np.int64) for name in ("positives", "kept", "dropped")}
        for group in range(negatives.num_row_groups):
            _add_queries(summary, negatives.read_row_group(group))
        for group in range(audit.num_row_groups):
            _add_candidates(summary, audit.read_row_group(group))
    return summary


def _add_queries(summary: Summary, table: pa.Table) -> None:
    table = table.append_column("kept", pc.list_value_length(table["negatives"]))
    for setting in pc.unique(table["setting"]).to_pylist():
        own, counts = table.filter(pc.equal(table["setting"], setting)), summary.queries.setdefault(setting, Queries())
        kept = np.asarray(own["kept"])
        counts.all += len(kept)
        counts.with_negatives += int((kept > 0).sum())
        counts.negatives += int(kept.sum())
        counts.without_positive_score += own["positive_score"].null_count
    summary.histograms["positives"] += _histogram(summary, table["positive_score"])


def _add_candidates(summary: Summary, table: pa.Table) -> None:
    for name in ("pool", "set", "reason"):
        plain = pc.fill_null(table[name].cast(pa.string()), "")
        table = table.set_column(table.schema.get_field_index(name), name, plain)
    for row in table.group_by(list(Kind._fields)).aggregate([([], "count_all")]).to_pylist():
        count = row.pop("count_all")
        summary.counts[Kind(**row)] += count
    kept = table.filter(pc.equal(table["reason"], REASONS[KEPT]))
    dropped = table.filter(pc.invert(pc.is_in(table["reason"], value_set=pa.array(_NOT_DROPPED))))
    summary.histograms["kept"] += _histogram(summary, kept["score"])
    summary.histograms["dropped"] += _histogram(summary, dropped["score"])
    suspects = summary.suspects + _suspects(kept, summary.metric)
    summary.suspects = sorted(suspects, key=lambda one: -_suspicion(one, summary.metric))[:LIKELIEST]


def _suspects(kept: pa.Table, metric: str) -> list[Suspect]:
    """The likeliest of one row group. All rows of a query are in one group."""
    near = pc.subtract(kept["score"], kept["positive_score"]) if metric == "cosine" else pc.negate(kept["rank"])
    suspicion = np.asarray(pc.fill_null(pc.cast(near, pa.float64()), np.nan))
    order = np.argsort(-suspicion, kind="stable")  # nan, of a positive without a score, comes last
    columns = ["qid", "did", "setting", "pool", "rank", "score", "positive_score"]
    found: dict[str, Suspect] = {}
    for place in order[: np.isfinite(suspicion).sum()].tolist():
        qid = kept["qid"][place].as_py()
        if qid not in found:
            found[qid] = Suspect(*(kept[name][place].as_py() for name in columns))
        if len(found) == LIKELIEST:
            break
    return list(found.values())


def _suspicion(one: Suspect, metric: str) -> float:
    return one.score - (one.positive_score or 0.0) if metric == "cosine" else -float(one.rank or 0)


def _histogram(summary: Summary, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.histogram(_numbers(column), summary.edges)[0].astype(np.int64)


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    return np.asarray(pc.drop_null(column), np.float32)
