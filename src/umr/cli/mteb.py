"""`umr mteb`: measure a model on mteb's tasks, or on a benchmark of ours through mteb."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umr.cli.eval import Dtype, Pool, names_of

if TYPE_CHECKING:
    from umr.data.benchmark import PoolName


def mteb(
    out: Annotated[Path, typer.Option(help="Folder for the results, in mteb's layout; those that it holds are not measured again.")],
    model: Annotated[str | None, typer.Option(help="Folder or hub id of an embedder.")] = None,
    reranker: Annotated[str | None, typer.Option(help="Folder or hub id of a reranker, for reranking tasks.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Name of a task that mteb knows. May be repeated.")] = None,
    benchmark: Annotated[
        list[Path] | None, typer.Option(help="Benchmark folder as tasks: an M-BEIR tree, World, or a text set. May be repeated.")
    ] = None,
    pool: Annotated[list[Pool] | None, typer.Option(help="Of benchmarks: candidates to search. May be repeated. Default: local.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Of benchmarks: task names separated by commas. Default: all.")] = None,
    split: Annotated[str, typer.Option(help="Of benchmarks: which queries.")] = "test",
    instruction: Annotated[
        list[str] | None,
        typer.Option(help="NAME=TEXT: instruction of a task or type of tasks, in place of its prompt; NAME= for none. May be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What mteb calls the model: organization/model. Default: by its folder.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the model.")] = Dtype.float32,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
) -> None:
    """Measure a model through the package mteb, which is an extra: text and any-to-any retrieval, and reranking."""
    from umr.cli import console
    from umr.errors import RecipeError

    path = model or reranker
    if path is None or (model is not None and reranker is not None):
        raise RecipeError("give a --model or a --reranker, one of them")
    if not task and not benchmark:
        raise RecipeError("there is nothing to measure: give a --task or a --benchmark")
    if benchmark is None and (pool or tasks is not None or split != "test"):
        raise RecipeError("--pool, --tasks and --split have no effect without a --benchmark; leave them out")
    if benchmark is not None and reranker is not None:
        raise RecipeError("a reranker needs candidates to rerank, and tasks of a --benchmark bring none; use umr eval --rerank")

    from umr import Embedder, Reranker
    from umr.evaluation.mteb import MtebEncoder, MtebReranker, benchmark_tasks, named_tasks, run, score_rows
    from umr.protocols import query_text_of

    console.hush_transformers()
    given = _instructions(instruction or [])
    called = name or (path if "/" in path and not Path(path).exists() else f"umr/{Path(path).resolve().name}")
    chosen = named_tasks(task or [])
    wrapped: MtebEncoder | MtebReranker
    if model is not None:
        embedder = Embedder.load(model, dtype=dtype.value, batch_tokens=batch_tokens)
        wrapped = MtebEncoder(embedder, called, given)
        for folder in benchmark or []:
            pools: list[PoolName] = [kind.value for kind in pool or [Pool.local]]
            chosen += benchmark_tasks(folder, split, pools, names_of(tasks), query_text=query_text_of(embedder))
    else:
        wrapped = MtebReranker(Reranker.load(path, dtype=dtype.value, batch_tokens=batch_tokens), called, given)
    found = run(wrapped, chosen, out)
    console.table(("task", "split", "metric", "score"), [(*row[:3], f"{row[3]:.2f}") for row in score_rows(found, chosen)])


def _instructions(given: list[str]) -> dict[str, str | None]:
    """From `NAME=TEXT`; an empty text is none."""
    from umr.errors import RecipeError

    found: dict[str, str | None] = {}
    for one in given:
        key, equals, text = one.partition("=")
        if not equals or not key or key in found:
            raise RecipeError(f"--instruction wants NAME=TEXT, each name once, not {one!r}")
        found[key] = text or None
    return found
