"""Rows whose modalities lie in cones apart from each other, as those of real models do, and search by brute force."""

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
import pyarrow as pa

from umr.search.filters import Filter
from umr.search.metadata import FILTER_COLUMNS, encode, filter_columns
from umr.search.table import Near

MODALITIES = {"text": 0.4, "image": 0.3, "image,text": 0.2, "video": 0.1}
MEANINGS = 100


def cones(
    rows: int, dimension: int, shares: dict[str, float] = MODALITIES, gap: float = 1.0, spread: float = 0.6, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Unit vectors of each modality, and which meaning each has: meanings are the same everywhere, offsets are the modality's own."""
    draw = np.random.default_rng(seed)
    spectrum_D = 1 / np.sqrt(np.arange(1, dimension + 1))
    spectrum_D /= np.linalg.norm(spectrum_D)
    basis_DD, _ = np.linalg.qr(draw.standard_normal((dimension, dimension)))
    meanings_MD = draw.standard_normal((MEANINGS, dimension)) * spectrum_D
    often_M = 1 / np.arange(1, MEANINGS + 1)
    found = {}
    for modality, share in shares.items():
        some = int(rows * share)
        meaning_N = draw.choice(MEANINGS, some, p=often_M / often_M.sum())
        offset_D = draw.standard_normal(dimension)
        vectors_ND = (meanings_MD[meaning_N] + spread * draw.standard_normal((some, dimension)) * spectrum_D) @ basis_DD
        vectors_ND += gap * offset_D / np.linalg.norm(offset_D)
        found[modality] = ((vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float16), meaning_N)
    return found


def table_of(made: dict[str, tuple[np.ndarray, np.ndarray]]) -> pa.Table:
    """Their rows, in mixed order: `tenth` is random, 0 to 9; `meaning` goes with the vectors."""
    draw = np.random.default_rng(1)
    parts = [
        rows_of([f"{modality}-{number:06d}" for number in range(len(vectors_ND))], modality, vectors_ND, meaning_N.tolist())
        for modality, (vectors_ND, meaning_N) in made.items()
    ]
    table = pa.concat_tables(parts)
    return table.take(pa.array(draw.permutation(len(table))))


_WRITTEN = count(1)
"""The time at which rows are written, since each call makes new ones."""


def rows_of(ids: Sequence[str], modality: str, vectors_ND: np.ndarray, meanings: Sequence[int] | None = None) -> pa.Table:
    draw = np.random.default_rng(len(ids))
    meanings = meanings if meanings is not None else [0] * len(ids)
    metadata = [
        encode({"meaning": meaning, "tenth": tenth})
        for meaning, tenth in zip(meanings, draw.integers(10, size=len(ids)).tolist(), strict=True)
    ]
    dimension = vectors_ND.shape[1]
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "source": pa.array([f"{id}.file" for id in ids], pa.string()),
            "modality": pa.array([modality] * len(ids), pa.string()),
            "page": pa.array([None] * len(ids), pa.int32()),
            "start": pa.array([None] * len(ids), pa.float64()),
            "end": pa.array([None] * len(ids), pa.float64()),
            "metadata": pa.array(metadata, pa.string()),
            "digest": pa.array([f"digest of {id}" for id in ids], pa.string()),
            "text": pa.array([f"{modality} {id}" for id in ids], pa.string()),
            "media": pa.array([""] * len(ids), pa.string()),
            "thumbnail": pa.array([id.encode() for id in ids], pa.binary()),
            "changed": pa.array([next(_WRITTEN)] * len(ids), pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.astype(np.float16).ravel()), dimension),
        }
    )


class Scanned:
    """A table that is scanned in batches, and counts how often it was."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.scans = 0

    def __call__(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.scans += 1
        yield from self.table.select(columns).to_batches(max_chunksize=777)


def vectors_of(table: pa.Table) -> np.ndarray:
    column = table["vector"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, table["vector"].type.list_size).astype(np.float64)


def brute(
    table: pa.Table, queries_QD: np.ndarray, k: int, where: Filter | None = None, modalities: Sequence[str] | None = None
) -> list[list[Near]]:
    """What `nearest` promises, written plainly."""
    passing = np.ones(len(table), bool)
    if where:
        passing &= where.mask(filter_columns(table.select(FILTER_COLUMNS), where.fields))
    if modalities is not None:
        passing &= np.isin(table["modality"].to_pylist(), list(modalities))
    table = table.filter(pa.array(passing))
    unit_QD = queries_QD.astype(np.float64) / np.linalg.norm(queries_QD.astype(np.float64), axis=1, keepdims=True)
    unit_QD = unit_QD.astype(np.float32).astype(np.float64)
    ids, vectors_ND = table["id"].to_pylist(), vectors_of(table)
    found = []
    for query_D in unit_QD:
        scores_N = (vectors_ND * query_D).sum(axis=1).astype(np.float32)
        least = np.sort(scores_N)[-k] if 0 < k < len(scores_N) else -np.inf
        near = [Near(ids[row], float(scores_N[row])) for row in np.flatnonzero(scores_N >= least)]
        found.append(sorted(near, key=lambda near: (-near.score, near.id))[:k])
    return found


def recall(found: Sequence[Sequence[Near]], true: Sequence[Sequence[Near]]) -> float:
    """Share of the true results that were found."""
    shares = [len({near.id for near in one} & {near.id for near in other}) / len(other) for one, other in zip(found, true, strict=True)]
    return float(np.mean(shares))
