"""The files of an index: all that a search reads quickly, derived from one version of a table and made again from it at any time.

index/
  lock                      held while an index is built
  base-VERSION/             made under another name, then renamed: it is whole or not there
    manifest.json           format, dimension, when it was made, and per partition: modality, rows, plans, files with sizes
    0.columns.arrow         everything else of the rows: the fields that filters read, and what hits show
    0.vectors.f16           unit vectors, row after row
    0.signs.u8, 0.mean.f32  packed sign bits, and what they are about
    0.cells.faiss           where there are cells
  delta.arrow               rows that have changed since, see `umr.search.changes`
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umr.errors import StoreError
from umr.search.approximate import Cells
from umr.search.columns import CHANGED, KEPT, SHOWN, Columns
from umr.search.flat import Signs, faiss_or_none, mean_of, pack_all, sample_rows
from umr.search.metadata import FILTER_COLUMNS
from umr.search.partition import Partition
from umr.search.plans import Limits, Plans, calibrate
from umr.search.scoring import Half

Scan: TypeAlias = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]

SCANNED = (*FILTER_COLUMNS, "vector")
"""Columns of rows that have changed since an index was built."""
WHOLE = (*SCANNED, *SHOWN, CHANGED)
"""Columns that an index is built of."""
DELTA = "delta.arrow"
_FORMAT = 2
_MANIFEST = "manifest.json"
_UNFINISHED = ".unfinished-"


def base_of(folder: Path, version: str) -> Path:
    """Where the index of a table version is."""
    return folder / f"base-{quote(version, safe='')}"


def build(scan: Scan, folder: Path, version: str, dimension: int, limits: Limits) -> Path:
    """Make the index of a table version; earlier ones are removed once it is there.

    Args:
        scan: gives all rows of that version.
        folder: of all indexes; made when missing. The caller holds its lock.
        version: of the table.
        dimension: length of a vector.
        limits: what to make of how many rows.

    Raises:
        StoreError: vectors of another dimension, or a full disk.
    """
    making = Path(tempfile.mkdtemp(dir=folder, prefix=_UNFINISHED))
    try:
        partitions = _write_rows(scan, making, dimension)
        _add_signs(making, partitions, dimension, limits)
        _add_plans(making, partitions, dimension, limits)
        _seal(making, {"format": _FORMAT, "version": version, "dimension": dimension, "partitions": partitions})
        target = base_of(folder, version)
        if target.exists():  # a damaged one
            shutil.rmtree(target)
        making.chmod(0o755)
        making.rename(target)
        flush(folder)
    except OSError as error:
        raise StoreError(
            f"{folder}: the index cannot be written ({error.strerror or error}); free space there or choose another"
        ) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    clear(folder, keep=target)
    return target


def _write_rows(scan: Scan, making: Path, dimension: int) -> list[dict[str, Any]]:
    """Write rows as they come; gives the partitions, ordered by modality."""
    files: dict[str, tuple[BinaryIO, pa.RecordBatchFileWriter]] = {}
    count: Counter[str] = Counter()
    with ExitStack() as opened:
        for batch in scan(WHOLE):
            table = pa.table(batch) if not isinstance(batch, pa.Table) else batch
            for modality, rows in by_modality(table):
                kept = rows.select((*KEPT, *SHOWN, CHANGED)).combine_chunks()
                if modality not in files:
                    name = str(making / str(len(files)))
                    columns = opened.enter_context(pa.OSFile(f"{name}.columns.arrow", "wb"))
                    writer = opened.enter_context(pa.ipc.new_file(columns, kept.schema))
                    files[modality] = opened.enter_context(Path(f"{name}.vectors.f16").open("wb")), writer
                vectors, writer = files[modality]
                vectors.write(half_vectors(rows["vector"], dimension).tobytes())
                writer.write_table(kept)
                count[modality] += len(kept)
    made = [{"modality": modality, "rows": count[modality], "name": str(number), "plans": {}} for number, modality in enumerate(files)]
    return sorted(made, key=lambda one: str(one["modality"]))


def _add_signs(making: Path, partitions: list[dict[str, Any]], dimension: int, limits: Limits) -> None:
    for one in partitions:
        if one["rows"] > limits.exact:
            vectors_ND = _mapped(making, one, dimension)
            mean_D = mean_of(vectors_ND)
            mean_D.tofile(making / f"{one['name']}.mean.f32")
            pack_all(vectors_ND, mean_D).tofile(making / f"{one['name']}.signs.u8")


def _add_plans(making: Path, partitions: list[dict[str, Any]], dimension: int, limits: Limits) -> None:
    """Build the cells and find out how hard to search, once all partitions are there to ask each other."""
    asked = {one["modality"]: _sample(_mapped(making, one, dimension), limits.sample) for one in partitions}
    for one in partitions:
        if one["rows"] <= limits.exact:
            continue
        vectors_ND = _mapped(making, one, dimension)
        signs = _signs(making, one, dimension)
        cells = None
        if one["rows"] > limits.flat and (faiss := faiss_or_none()):
            cells = Cells.build(vectors_ND, faiss, one["modality"])
            cells.save(making / f"{one['name']}.cells.faiss")
        one["plans"] = calibrate(vectors_ND, signs, cells, asked, limits).to_json()


def _sample(vectors_ND: Half, count: int) -> Half:
    return np.array(vectors_ND[sample_rows(len(vectors_ND), count, seed=2)])


def _seal(making: Path, manifest: dict[str, Any]) -> None:
    """Bring all files to the disk, then write the manifest, which says how large they are."""
    sizes = {}
    for path in sorted(making.iterdir()):
        flush(path)
        sizes[path.name] = path.stat().st_size
    content = {**manifest, "files": sizes, "made": datetime.now(UTC).isoformat(timespec="seconds")}
    (making / _MANIFEST).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    flush(making / _MANIFEST)
    flush(making)


def load(base: Path, dimension: int, limits: Limits) -> list[Partition] | None:
    """The partitions of an index, or None where there is none that is whole and of that dimension."""
    try:
        content = json.loads((base / _MANIFEST).read_text())
        if (content["format"], content["dimension"]) != (_FORMAT, dimension):
            return None
        if any((base / name).stat().st_size != size for name, size in content["files"].items()):
            return None
        return [_load_partition(base, one, dimension, limits) for one in content["partitions"]]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def _load_partition(base: Path, one: dict[str, Any], dimension: int, limits: Limits) -> Partition:
    table = pa.ipc.open_file(pa.memory_map(str(base / f"{one['name']}.columns.arrow"))).read_all()
    vectors_ND = _mapped(base, one, dimension)
    if len(table) != one["rows"]:
        raise ValueError("columns and vectors differ in number")
    cells = base / f"{one['name']}.cells.faiss"
    faiss = faiss_or_none() if cells.exists() else None
    return Partition(
        Columns(one["modality"], table),
        vectors_ND,
        _signs(base, one, dimension) if (base / f"{one['name']}.signs.u8").exists() else None,
        Cells.load(cells, faiss) if faiss else None,
        Plans.from_json(one["plans"]),
        limits,
    )


def _mapped(folder: Path, one: dict[str, Any], dimension: int) -> Half:
    """Copy on write, because torch wants memory that it could write to; nothing does."""
    mapped_ND = np.memmap(folder / f"{one['name']}.vectors.f16", np.float16, mode="c", shape=(one["rows"], dimension))
    return np.asarray(mapped_ND)  # picking rows of a plain array is quicker


def _signs(folder: Path, one: dict[str, Any], dimension: int) -> Signs:
    packed_NB = np.fromfile(folder / f"{one['name']}.signs.u8", np.uint8).reshape(one["rows"], -1)
    mean_D = np.fromfile(folder / f"{one['name']}.mean.f32", np.float32)
    if packed_NB.shape[1] != -(-dimension // 64) * 8 or mean_D.shape != (dimension,):
        raise ValueError("sign bits of another dimension")
    return Signs(packed_NB, mean_D, faiss_or_none())


def bases(folder: Path) -> list[Path]:
    """All indexes, the newest first."""
    found = [path for path in folder.glob("base-*") if (path / _MANIFEST).is_file()]
    return sorted(found, key=lambda path: (path / _MANIFEST).stat().st_mtime_ns, reverse=True)


def clear(folder: Path, keep: Path) -> None:
    """Remove all indexes but one, what is left of unfinished ones, and the delta, which belongs to an earlier one.

    A process that searches a removed one goes on with it: its files stay until it lets go of them.
    """
    (folder / DELTA).unlink(missing_ok=True)
    for path in [*folder.glob("base-*"), *folder.glob(f"{_UNFINISHED}*")]:
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def by_modality(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """A table's rows for each modality in it."""
    for modality in pc.unique(table["modality"]).to_pylist():
        yield modality, table.filter(pc.equal(table["modality"], modality))


def half_vectors(column: pa.ChunkedArray | pa.Array, dimension: int) -> Half:
    """A vector column as float16, shape (N, D).

    Raises:
        StoreError: another dimension, or a row without vector.
    """
    parts = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        if chunk.null_count or chunk.type.list_size != dimension:
            raise StoreError(f"the table holds rows without a vector of {dimension} numbers; index the collection again")
        parts.append(chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension))
    return np.concatenate([np.empty((0, dimension), np.float16), *parts]).astype(np.float16, copy=False)


def flush(path: Path) -> None:
    """Make a file, or the renames in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
