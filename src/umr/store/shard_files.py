"""The files of one shard of vectors, as bytes: fp16 unit rows, and their ids and modalities."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from umr.errors import StoreError
from umr.protocols import Vectors
from umr.store.manifest import Shard
from umr.store.shard_folder import digest


def shard_contents(number: int, ids: Sequence[str], modalities: Sequence[str], vectors_ND: Vectors) -> dict[str, bytes]:
    """The files of shard `number` by name; the arguments are those of `VectorStore.append`.

    Raises:
        StoreError: a vector that is zero or not finite. Names the id.
    """
    table = pa.table({"id": pa.array(ids, pa.string()), "modality": pa.array(modalities, pa.string())})
    return {f"{number:05d}.npy": _npy(ids, vectors_ND), f"{number:05d}.parquet": _parquet(table)}


def describe(rows: int, contents: Mapping[str, bytes]) -> Shard:
    """What the manifest says of a shard with these files."""
    return Shard(rows, {name: (len(data), digest(data)) for name, data in contents.items()})


def _npy(ids: Sequence[str], vectors_ND: Vectors) -> bytes:
    wide_ND = np.asarray(vectors_ND, np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        unit_ND = wide_ND / np.linalg.norm(wide_ND, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(unit_ND).all(axis=1))
    if len(bad):
        what = "zero" if np.isfinite(vectors_ND[bad[0]]).all() else "not finite"
        raise StoreError(f"the vector of {ids[bad[0]]!r} is {what}: look at the item and at the model")
    buffer = io.BytesIO()
    np.save(buffer, unit_ND.astype(np.float16), allow_pickle=False)
    return buffer.getvalue()


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
