"""`umr calibrate`: fit offsets by modality for the scores of a mixed pool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umr.cli.eval import Dtype, names_of


def calibrate(
    model: Annotated[str, typer.Option(help="Model folder or hub id.")],
    benchmark: Annotated[Path, typer.Option(help="Benchmark folder in the M-BEIR layout.")],
    out: Annotated[Path, typer.Option(help="File for the offsets, which umr eval --calibration reads.")],
    tasks: Annotated[str | None, typer.Option(help="Task names separated by commas. Default: all.")] = None,
    split: Annotated[str, typer.Option(help="Which queries: val, not test.")] = "val",
    work: Annotated[Path, typer.Option(help="Folder for the vectors, which a later run uses again.")] = Path("runs/eval"),
    dtype: Annotated[Dtype, typer.Option(help="Precision of the model.")] = Dtype.float32,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
) -> None:
    """Choose what is added to the scores of each modality in the global pool, on validation queries."""
    from umr import Embedder
    from umr.cli import console
    from umr.evaluation.calibrating import calibrate as fit

    console.hush_transformers()
    embedder = Embedder.load(model, dtype=dtype.value, batch_tokens=batch_tokens)
    found = fit(embedder, benchmark, split, work, names_of(tasks))
    found.save(out)
    kinds = list(dict.fromkeys(kind for offsets in found.offsets.values() for kind in offsets))
    rows = []
    for asked, offsets in found.offsets.items():
        scores = (f"{getattr(one, key):.1f}" for key in ("main", "accuracy") for one in (found.before[asked], found.after[asked]))
        rows.append((asked, *(f"{offsets[kind]:+.2f}" for kind in kinds), *scores))
    console.table(("query", *kinds, "hits", "then", "modality@1", "then"), rows)
