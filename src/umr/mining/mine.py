"""Mining hard negatives: find, filter, choose, write; resumable after every block of queries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from umr import files
from umr.bulk.crew import Crew
from umr.bulk.staff import Staff
from umr.bulk.work import ModelFolder
from umr.data.benchmark import Benchmark, open_benchmark
from umr.errors import DataError, RecipeError
from umr.mining import recall, report
from umr.mining.audit import Summary, summarise
from umr.mining.content import Digests
from umr.mining.examine import Block, examine
from umr.mining.fill import PairScorer
from umr.mining.negatives import MARK
from umr.mining.queries import Group, training_data, training_groups
from umr.mining.rules import check_effect
from umr.mining.runs import RunFile
from umr.mining.settings import MineSettings
from umr.mining.sources import ModelSource, RunSource, Source, in_runs, run_fingerprint
from umr.mining.tables import AUDIT, AUDIT_SCHEMA, NEGATIVES, NEGATIVES_SCHEMA, declared, join, write_part
from umr.progress import progress
from umr.protocols import Encoder, query_text_of

REPORT = "report.html"
PARTS = "parts"
"""Folder of the blocks that are done, while mining lasts."""


def mine(
    model: str | Path,
    benchmark: Path,
    out: Path,
    settings: MineSettings,
    work_dir: Path | None = None,
    *,
    restart: bool = False,
    dtype: str = "float32",
    batch_tokens: int | None = None,
    crew: Crew | None = None,
) -> Path:
    """Mine negatives for the training queries of a benchmark with a model.

    Called again after an interruption it goes on where it stopped and ends with the same files; finished, it changes nothing.

    Args:
        model: folder or hub id, for `Embedder.load`.
        benchmark: folder in M-BEIR's layout.
        out: folder for `negatives.parquet`, `audit.parquet`, `report.html` and, last, `mining.json`.
        settings: what to do.
        work_dir: folder for vectors; by default `out`, which then has a folder `vectors` that may be deleted.
        restart: throw away what is in `out`, except vectors.
        dtype: of the models.
        batch_tokens: token budget of a batch, of the models.
        crew: workers that embed what is searched. Default: this process.

    Returns:
        `out`.

    Raises:
        DataError: unusable data.
        RecipeError: `out` holds mining of another model, other data or other settings.
        ModelError: a model that cannot be loaded.
        StoreError: damaged vectors.
    """
    from umr.models.embedder import Embedder

    encoder = Embedder.load(model, dtype=dtype, batch_tokens=batch_tokens)
    reranker = _load_reranker(settings, dtype, batch_tokens)
    staff = Staff.of(crew, ModelFolder(str(model), dtype, batch_tokens))
    data = open_benchmark(Path(benchmark))
    return mine_with(encoder, data, out, settings, work_dir, reranker=reranker, restart=restart, staff=staff)


def mine_with(
    encoder: Encoder,
    benchmark: Benchmark,
    out: Path,
    settings: MineSettings,
    work_dir: Path | None = None,
    *,
    reranker: PairScorer | None = None,
    restart: bool = False,
    staff: Staff | None = None,
) -> Path:
    """`mine` with models that are loaded already; `reranker` belongs to `settings.reranker`, `staff` to `encoder`."""
    benchmark = benchmark.with_query_text(query_text_of(encoder))
    job = _Job(benchmark, Path(out), settings, reranker, encoder.fingerprint)
    if job.begin("cosine", restart):
        groups = training_groups(benchmark, settings.settings, settings.fraction, settings.seed)
        check_effect(settings, groups, benchmark.train_pool())
        job.run(groups, ModelSource(encoder, benchmark, groups, settings, Path(work_dir or out), staff))
    return job.out


def mine_run(
    run_files: Sequence[Path],
    benchmark: Path,
    out: Path,
    settings: MineSettings,
    *,
    metric: Literal["cosine"] | None = None,
    restart: bool = False,
    dtype: str = "float32",
    batch_tokens: int | None = None,
) -> Path:
    """Mine negatives from rankings of training queries over the training pool that another system made.

    Args:
        run_files: TREC run files; see `umr.mining.runs.RunFile`. Their queries that are not to be mined for are passed over.
        benchmark: as of `mine`, like the other arguments.
        out: likewise.
        settings: without those that are about searching.
        metric: `"cosine"` where the scores are cosines. Filters on scores need that.
        restart: as of `mine`.
        dtype: of the reranker.
        batch_tokens: of the reranker.

    Raises:
        RecipeError: a setting that has no effect here, or a filter on scores without a metric. The rest as of `mine`.
    """
    if not run_files:
        raise RecipeError("mining from runs needs at least one run file")
    reranker = _load_reranker(settings, dtype, batch_tokens)
    return mine_run_with(run_files, open_benchmark(Path(benchmark)), out, settings, metric=metric, reranker=reranker, restart=restart)


def mine_run_with(
    run_files: Sequence[Path],
    benchmark: Benchmark,
    out: Path,
    settings: MineSettings,
    *,
    metric: Literal["cosine"] | None = None,
    reranker: PairScorer | None = None,
    restart: bool = False,
) -> Path:
    """`mine_run` with a reranker that is loaded already."""
    settings, paths = settings.for_runs(metric), [Path(path) for path in run_files]
    if settings.modality_aware is not None and len(paths) > 1:
        raise RecipeError("modality_aware asks what ranks above the positive, so it needs one ranking; give one run file")
    job = _Job(benchmark, Path(out), settings, reranker, f"run:{run_fingerprint(paths)}")
    if job.begin(metric or "rank", restart):
        groups = training_groups(benchmark, settings.settings, settings.fraction, settings.seed)
        runs = [RunFile(path, metric) for path in paths]
        groups, left_out = in_runs(runs, groups)
        check_effect(settings, groups, benchmark.train_pool())
        job.run(groups, RunSource(runs, benchmark, groups, settings.instruction), {"run_queries_left_out": left_out})
    return job.out


def in_short(out: Path) -> str:
    """One line about finished mining."""
    counts = json.loads((out / MARK).read_text("utf-8"))["queries"].values()
    queries, some, negatives = (sum(one[name] for one in counts) for name in ("all", "with_negatives", "negatives"))
    return f"{out / NEGATIVES}: {negatives} negatives for {some} of {queries} queries"


def _load_reranker(settings: MineSettings, dtype: str, batch_tokens: int | None) -> PairScorer | None:
    if settings.reranker is None:
        return None
    from umr.models.reranker import Reranker

    loaded: PairScorer = Reranker.load(settings.reranker, dtype=dtype, batch_tokens=batch_tokens)
    return loaded


@dataclass
class _Job:
    """One mining run and its folder."""

    benchmark: Benchmark
    out: Path
    settings: MineSettings
    reranker: PairScorer | None
    model: str

    def begin(self, metric: str, restart: bool) -> bool:
        """Claim the folder. False when everything is there already."""
        if (self.settings.reranker is None) != (self.reranker is None):
            raise RecipeError("settings.reranker and the reranker given do not go together; give both or neither")
        data = training_data(self.benchmark)
        self.about = declared(metric, self.model, data)
        about_settings = self.settings.model_dump(mode="json", exclude={"reranker"})
        reranker = None if self.reranker is None else self.reranker.fingerprint
        wanted: dict[str, Any] = {**self.about, "reranker": reranker, "settings": about_settings}
        if restart:
            self._clear()
        finished, started = self.out / MARK, self.out / PARTS / MARK
        if finished.is_file():
            _compare(finished, wanted, self.out)
            self._remove_parts()
            return False
        if started.is_file() and any(self._parts()):
            _compare(started, wanted, self.out)
        else:  # parts without it are of unknown settings: what is left of a restart that was killed
            self._remove_parts()
        files.write_text(started, json.dumps(wanted, indent=1, sort_keys=True) + "\n")
        self.wanted = wanted
        return True

    def run(self, groups: Sequence[Group], source: Source, more: dict[str, int] | None = None) -> None:
        """Do the blocks that are missing, then join them; `more` goes into `mining.json`."""
        blocks = list(_blocks(groups))
        pool = self.benchmark.train_pool()
        digests = Digests(pool)
        with progress("mining", sum(len(group.qids) for group in groups), "queries") as bar:
            for block in blocks:
                if not self._part(block, NEGATIVES).is_file():
                    found = examine(block, groups[block.group], source, self.settings, pool, digests, self.reranker)
                    write_part(self._part(block, AUDIT), found.audit(source.columns))
                    write_part(self._part(block, NEGATIVES), found.negatives(source.columns))  # its presence says that the block is done
                bar.advance(block.stop - block.start)
        for name, schema in ((NEGATIVES, NEGATIVES_SCHEMA), (AUDIT, AUDIT_SCHEMA)):
            join([self._part(block, name) for block in blocks], self.out / name, schema, self.about)
        summary = summarise(self.out, self.about["metric"])
        files.write_text(self.out / REPORT, report.html(self.wanted, summary, groups, source, pool))
        self._finish(summary, more or {})

    def _part(self, block: Block, name: str) -> Path:
        return self.out / PARTS / f"{block.group:04d}-{block.start:08d}-{block.stop:08d}.{name}"

    def _parts(self) -> Iterator[Path]:
        return (self.out / PARTS).glob("*.parquet")

    def _finish(self, summary: Summary, more: dict[str, int]) -> None:
        content = {
            **self.wanted,
            **more,
            "queries": {setting: asdict(counts) for setting, counts in summary.queries.items()},
            "counts": [{**kind._asdict(), "set": kind.set or None, "count": count} for kind, count in sorted(summary.counts.items())],
        }
        files.write_text(self.out / MARK, json.dumps(content, indent=1, sort_keys=True) + "\n")
        self._remove_parts()

    def _remove_parts(self) -> None:
        shutil.rmtree(self.out / PARTS, ignore_errors=True)

    def _clear(self) -> None:
        for name in (MARK, NEGATIVES, AUDIT, REPORT):
            (self.out / name).unlink(missing_ok=True)
        self._remove_parts()


def _blocks(groups: Sequence[Group]) -> Iterator[Block]:
    for index, group in enumerate(groups):
        for start in range(0, len(group.qids), recall.BLOCK):
            yield Block(index, start, min(start + recall.BLOCK, len(group.qids)))


def _compare(path: Path, wanted: dict[str, Any], out: Path) -> None:
    """Raise `RecipeError` where the folder belongs to other mining."""
    try:
        here: dict[str, Any] = json.loads(path.read_text("utf-8"))
        settings: dict[str, Any] = here["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); start again with restart") from error
    pairs = {name: (here.get(name), wanted[name]) for name in wanted if name != "settings"}
    pairs |= {name: (settings.get(name), value) for name, value in wanted["settings"].items()}
    for name, (there, now) in pairs.items():
        if there != now:
            raise RecipeError(f"{out}: holds mining with {name} {there!r}, not {now!r}; choose another folder, or restart")
