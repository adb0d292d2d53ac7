"""What `umr eval` does once its options are known: measure a model, or score run files, and show and write what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from umr.data.benchmark import Benchmark, PoolName
    from umr.evaluation.rerank import Reranking
    from umr.evaluation.result import EvaluationResult
    from umr.evaluation.several import Results
    from umr.evaluation.wordings import Wordings
    from umr.models.embedder import Embedder

WORK, DTYPE, FIRST = Path("runs/eval"), "float32", "first"


@dataclass(frozen=True)
class Asked:
    """The options of `umr eval`; `None` stands for what was not given."""

    model: str | None
    run: list[Path] | None
    benchmark: list[Path]
    pools: list[PoolName] | None
    tasks: list[str] | None
    split: str
    order: Literal["rank", "score"] | None
    instruction: str | None
    own_positives: bool
    on_error: Literal["fail", "skip"]
    json: Path | None
    out: Path | None
    work: Path | None
    dtype: str | None
    batch_tokens: int | None
    memory: str | None
    workers: int | None
    threads: int | None
    ray: str | None
    rerank: str | None
    prompts: str | None
    rerank_depth: int | None
    weight: float | None
    weights: Path | None
    weights_of_another_model: bool
    choose_weights: Path | None
    modality_filter: bool
    calibration: Path | None
    heat_map: Path | None
    curve: Path | None

    def open(self) -> list[Benchmark]:
        """The benchmarks."""
        from umr.data.benchmark import open_benchmark

        return [open_benchmark(path, self.on_error, own_positives=self.own_positives) for path in self.benchmark]


def check(asked: Asked) -> None:
    """Refuse options that would have no effect, or that exclude each other. Raises `RecipeError`."""
    from umr.errors import RecipeError
    from umr.store.budget import parse_bytes

    options = {"--rerank-depth": asked.rerank_depth, "--weight": asked.weight, "--weights": asked.weights}
    options |= {"--choose-weights": asked.choose_weights}
    about_reranker = [name for name, value in {"--prompts": asked.prompts, **options}.items() if value is not None]
    if asked.run is not None:
        _check_files(asked, about_reranker)
        return
    if asked.order is not None:
        raise RecipeError("--order has no effect without --run; leave it out")
    if asked.memory is not None:
        parse_bytes(asked.memory)
    if asked.rerank is None and about_reranker:
        raise RecipeError(f"{about_reranker[0]} has no effect without --rerank; leave it out, or name a reranker")
    where = [name for name in about_reranker if name not in ("--rerank-depth", "--prompts")]
    if len(where) > 1:
        raise RecipeError(f"{' and '.join(where)} each say where weights come from; give one of them")
    if asked.weights_of_another_model and asked.weights is None:
        raise RecipeError("--weights-of-another-model has no effect without --weights; leave it out")
    if asked.heat_map is not None and "global" not in (asked.pools or ["global"]):
        raise RecipeError("--heat-map has no effect without the global pool; leave it out, or search the global pool")
    if asked.heat_map is not None and asked.instruction == "all":
        raise RecipeError("--heat-map is of one wording of the instructions; give one")
    if asked.curve is not None and asked.instruction == "all":
        raise RecipeError("--curve is of one wording of the instructions; give one")
    if asked.curve is not None and asked.pools == ["global"] and (asked.modality_filter or asked.calibration is not None):
        raise RecipeError(
            "--curve has no effect where the global pool is searched with a filter or offsets alone; search the local pools, too"
        )
    if asked.choose_weights is not None and len(asked.benchmark) > 1:
        raise RecipeError("--choose-weights takes one --benchmark; choose on each, and give the weights with --weights")


def _check_files(asked: Asked, about_reranker: list[str]) -> None:
    from umr.errors import RecipeError

    given: dict[str, object] = {
        "--model": asked.model,
        "--rerank": asked.rerank,
        "--work": asked.work,
        "--dtype": asked.dtype,
        "--batch-tokens": asked.batch_tokens,
        "--memory": asked.memory,
        "--workers": asked.workers,
        "--threads": asked.threads,
        "--ray": asked.ray,
        "--instruction": asked.instruction,
        "--modality-filter": asked.modality_filter or None,
        "--calibration": asked.calibration,
        "--weights-of-another-model": asked.weights_of_another_model or None,
        "--curve": asked.curve,
    }
    idle = [name for name, value in given.items() if value is not None] + about_reranker
    if idle:
        raise RecipeError(f"{idle[0]} has no effect with --run, which scores rankings that are there; leave it out")
    if asked.pools is None or len(asked.pools) > 1:
        raise RecipeError("--run needs one --pool: which candidates were searched, local or global?")
    if len(asked.benchmark) > 1:
        raise RecipeError("--run takes one --benchmark; score the files of each on their own")
    if asked.heat_map is not None and asked.pools != ["global"]:
        raise RecipeError("--heat-map has no effect without the global pool; leave it out")


def score_files(asked: Asked) -> None:
    """Score run files."""
    from umr.evaluation.run_scoring import score_runs

    benchmark = asked.open()[0]
    assert asked.run is not None and asked.pools is not None
    result = score_runs({asked.pools[0]: asked.run}, benchmark, asked.tasks, asked.split, asked.order)
    _present({benchmark.root.resolve().name: result}, asked)


def measure(asked: Asked) -> None:
    """Embed, search and score; with every wording of the instructions where that is asked for."""
    from umr.bulk.staff import Staff
    from umr.bulk.work import ModelFolder
    from umr.cli import console
    from umr.cli.crew import crew_of
    from umr.evaluation.calibration import Calibration
    from umr.evaluation.several import evaluate_each
    from umr.evaluation.wordings import evaluate_wordings
    from umr.models.embedder import Embedder

    console.hush_transformers()
    trees = asked.open()
    offsets = Calibration.load(asked.calibration) if asked.calibration is not None else None
    assert asked.model is not None
    embedder = Embedder.load(asked.model, dtype=asked.dtype or DTYPE, batch_tokens=asked.batch_tokens)
    staff = Staff.of(crew_of(asked.workers, asked.threads, asked.ray), ModelFolder(asked.model, asked.dtype or DTYPE, asked.batch_tokens))
    plan = None if asked.rerank is None else _reranking(asked, embedder, trees)

    def found(instruction: str) -> dict[str, EvaluationResult]:
        return evaluate_each(
            embedder,
            trees,
            pools=_pools(asked),
            tasks=asked.tasks,
            split=asked.split,
            work_dir=asked.work or WORK,
            instruction=instruction,
            depth=max(50, asked.rerank_depth or 0),
            rerank=plan,
            modality_filter=asked.modality_filter,
            calibration=offsets,
            memory=asked.memory,
            staff=staff,
        )

    if asked.instruction == "all":
        _present_wordings(evaluate_wordings(found, trees, asked.split, asked.tasks), asked)
    else:
        results = found(asked.instruction or FIRST)
        _present(results, asked)
        if asked.curve is not None:
            _draw_curves(results, trees, embedder, asked.curve, asked.work or WORK)


def _draw_curves(results: Results, trees: list[Benchmark], embedder: Embedder, out: Path, work: Path) -> None:
    """Quality against bytes and time, of each benchmark."""
    import json

    from umr.cli import console
    from umr.reports.curve import HEAD, curve
    from umr.reports.saved import Evaluation

    for tree in trees:
        name = tree.root.resolve().name
        if name in results:
            evaluation = Evaluation(name, json.loads(results[name].to_json()), results[name].queries)
            drawn = curve(evaluation, tree.with_query_text(embedder.query_text), work, embedder.dimensions)
            drawn.write(_folder(out, name, len(results)))
            console.table(HEAD, drawn.rows())


def _pools(asked: Asked) -> list[PoolName]:
    return asked.pools or ["local", "global"]


def _reranking(asked: Asked, embedder: Embedder, trees: list[Benchmark]) -> Reranking:
    from umr.cli import console
    from umr.evaluation.choosing import choose_weights
    from umr.evaluation.rerank import Reranking
    from umr.evaluation.weights import Weights
    from umr.models.reranker import Reranker

    assert asked.rerank is not None
    known = Weights.load(asked.weights) if asked.weights is not None else None
    depth = asked.rerank_depth or 50
    reranker = Reranker.load(asked.rerank, template=asked.prompts, dtype=asked.dtype or DTYPE, batch_tokens=asked.batch_tokens)
    if asked.prompts is not None:
        console.say(f"answers compared: {reranker.answers}")
    if asked.choose_weights is not None:
        wording = FIRST if asked.instruction in (None, "all") else asked.instruction
        known = choose_weights(
            embedder,
            reranker,
            trees[0],
            asked.split,
            depth=depth,
            pools=_pools(asked),
            work_dir=asked.work or WORK,
            tasks=asked.tasks,
            instruction=wording,
            memory=asked.memory,
        )
        known.save(asked.choose_weights)
    return Reranking(reranker, depth, known or (1.0 if asked.weight is None else asked.weight), asked.weights_of_another_model)


def _present(results: Results, asked: Asked) -> None:
    """Show tables, and write what files were asked for."""
    from umr.cli import console
    from umr.evaluation.several import to_json
    from umr.evaluation.tables import metric_table, modality_table
    from umr.files import write_text

    for result in results.values():
        console.show(result.table())
        for pool in result.pools:
            console.show(metric_table(result, pool))
        if result.mixed_pool is not None:
            console.show(modality_table(result))
    if asked.heat_map is not None:
        from umr.evaluation.charts import heat_map

        several = list(results.values())
        heat_map(next((one for one in several if one.mixed_pool is not None), several[-1]), asked.heat_map)
    if asked.json is not None:
        write_text(asked.json, to_json(results))
    if asked.out is not None:
        from umr.evaluation.outputs import write_outputs

        for name, result in results.items():
            write_outputs(result, _folder(asked.out, name, len(results)))


def _present_wordings(found: dict[str, Wordings], asked: Asked) -> None:
    """The same for every wording of the instructions."""
    from umr.cli import console
    from umr.evaluation.wordings import to_json
    from umr.files import write_text

    for one in found.values():
        console.show(one.table())
    if asked.json is not None:
        write_text(asked.json, to_json(found))
    if asked.out is not None:
        from umr.evaluation.outputs import write_outputs

        for name, one in found.items():
            folder = _folder(asked.out, name, len(found))
            write_text(folder / "wordings.json", to_json({name: one}))
            for result in one.results:
                write_outputs(result, folder / result.instruction)


def _folder(out: Path, name: str, count: int) -> Path:
    return out if count == 1 else out / name
