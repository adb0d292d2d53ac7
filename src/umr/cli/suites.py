"""`umr suites`: measure a model on zero-shot suites."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umr.cli.eval import Dtype


def _list(wanted: bool) -> None:
    if wanted:
        from umr.cli import console
        from umr.evaluation.suites.registry import SUITES

        console.table(("suite", "searches", "files"), [(name, one.about, one.source) for name, one in SUITES.items()])
        raise typer.Exit


def suites(
    model: Annotated[str, typer.Option(help="Model folder or hub id.")],
    suite: Annotated[list[str], typer.Option(help="NAME=FOLDER, such as urban1k=data/Urban1k. May be repeated.")],
    json: Annotated[Path | None, typer.Option(help="Write the results to this file, too.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the vectors, which a later run uses again.")] = Path("runs/eval"),
    trec: Annotated[Path | None, typer.Option(help="Write rankings into this folder, in the format trec_eval reads.")] = None,
    circo_submission: Annotated[Path | None, typer.Option(help="Write the file that CIRCO's test server takes.")] = None,
    instructions: Annotated[
        Path | None, typer.Option(help="YAML file, suite -> task -> instruction, in place of those of the papers.")
    ] = None,
    rerank: Annotated[str | None, typer.Option(help="Rerank the first results: folder or hub id of a reranker.")] = None,
    rerank_depth: Annotated[int | None, typer.Option(min=1, max=50, help="Results of each query to rerank. Default: 10.")] = None,
    weight: Annotated[float | None, typer.Option(min=0, help="Order reranked results by cosine + WEIGHT * P(Yes). Default: 0.1.")] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out what has missing images or videos; results say how much.")
    ] = False,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the model.")] = Dtype.float32,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
    show: Annotated[
        bool, typer.Option("--list", callback=_list, is_eager=True, help="List the suites and where their files come from.")
    ] = False,
) -> None:
    """Measure a model on zero-shot suites, with published scores beside: captions, composed images, dialogs, stories, video, pairs."""
    from umr import Embedder
    from umr.cli import console
    from umr.errors import RecipeError
    from umr.evaluation.suites import SuiteReranking, Wordings, evaluate_suite, open_suite
    from umr.evaluation.suites.circo import write_submission
    from umr.evaluation.suites.result import to_json
    from umr.files import write_text

    pairs = [_pair(text) for text in suite]
    if twice := sorted({name for name, _ in pairs if [one for one, _ in pairs].count(name) > 1}):
        raise RecipeError(f"--suite {twice[0]} is given twice; measure the folders one at a time")
    if circo_submission is not None and "circo" not in dict(pairs):
        raise RecipeError("--circo-submission has no effect without --suite circo=FOLDER; leave it out")
    if rerank is None and (idle := [name for name, one in (("--rerank-depth", rerank_depth), ("--weight", weight)) if one is not None]):
        raise RecipeError(f"{idle[0]} has no effect without --rerank; leave it out, or name a reranker")
    wordings = Wordings.load(instructions)
    # All annotations are read before the model is: what is missing shows at once.
    opened = [open_suite(name, folder) for name, folder in pairs]
    if circo_submission is not None and not any(one.name == "circo" and "test" in [task.name for task in one.tasks] for one in opened):
        raise RecipeError("--circo-submission needs the test queries: annotations/test.json")
    console.hush_transformers()
    embedder = Embedder.load(model, dtype=dtype.value, batch_tokens=batch_tokens)
    plan = None
    if rerank is not None:
        from umr.models.reranker import Reranker

        reranker = Reranker.load(rerank, dtype=dtype.value, batch_tokens=batch_tokens)
        plan = SuiteReranking(reranker, 10 if rerank_depth is None else rerank_depth, 0.1 if weight is None else weight)
    results = []
    for one in opened:
        result = evaluate_suite(embedder, one, None, work, "skip" if skip_missing else "fail", wordings, plan)
        results.append(result)
        console.show(result.table())
        if trec is not None:
            result.write_run_trec(trec)
        if circo_submission is not None and one.name == "circo":
            write_submission(result, circo_submission)
    if json is not None:
        write_text(json, to_json(results))


def _pair(text: str) -> tuple[str, Path]:
    from umr.errors import RecipeError

    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise RecipeError(f"--suite must be NAME=FOLDER, such as urban1k=data/Urban1k, not {text!r}")
    return name, Path(folder)
