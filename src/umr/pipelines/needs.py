"""What a stage takes from outside the pipeline: models, benchmarks, files. And what of it is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from umr.data.text_retrieval import CORPUS, QUERIES, TextRetrieval
from umr.errors import DataError
from umr.pipelines.fingerprints import MISSING, of_source
from umr.pipelines.references import references
from umr.rendering.pair_template import PROMPTS_SUFFIXES, ZERO_SHOT

if TYPE_CHECKING:
    from umr.evaluation.suites.task import Suite

Role = Literal["model", "benchmark", "suite", "file"]
_ROLES: dict[str, Role] = {
    "model": "model",
    "reranker": "model",
    "adapter": "model",
    "benchmark": "benchmark",
    "texts": "file",
    "images": "file",
    "mined": "file",
    "scores": "file",
    "weights": "file",
    "weight": "file",
    "calibration": "file",
    "ids_in": "file",
    "prompts": "file",
    "vectors": "file",
}
"""What a text under each key of a config is."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SAMPLED_MEDIA = 50
_NAMED = 3


@dataclass(frozen=True)
class Need:
    """A path, or the hub id of a model, that is no product of the pipeline.

    Attributes:
        key: where the config says it.
        value: what it says.
        role: what it is.
        splits: of a benchmark, which splits are used.
        settings: of a benchmark, which settings; `None` for all.
        pools: of a benchmark, which candidate pools are searched.
        skips: of a benchmark, whether lines without their image are left out.
    """

    key: str
    value: str
    role: Role
    splits: tuple[str, ...] = ()
    settings: tuple[str, ...] | None = None
    pools: tuple[str, ...] = ()
    skips: bool = False

    @property
    def path(self) -> Path | None:
        """On this machine; `None` for a hub id."""
        return None if self.role == "model" and is_hub_id(self.value) else Path(self.value)

    def fingerprint(self) -> str:
        """Of what is there; a model of the hub is known by its name."""
        if self.path is None:
            return f"hub:{self.value}"
        return _of_suite(self) if self.role == "suite" else of_source(self.path)


def is_hub_id(value: str) -> bool:
    """Whether it names a model of the hub: `owner/name`, and no folder of this machine."""
    return _HUB_ID.fullmatch(value) is not None and not Path(value).exists() and not Path(value).parent.exists()


def needs_of(kind: str, config: dict[str, Any]) -> tuple[Need, ...]:
    """Everything in a config that comes from outside."""
    if kind == "train":
        return tuple(_of_recipe(config["recipe"]))
    settings = config.get("settings") or {}  # of mining and scoring
    split = config.get("split") or settings.get("split") or "train"
    # Mining and scoring read every training file, whichever settings they are for: right answers may stand in any of them.
    names = config.get("tasks") or (None if split == "train" else settings.get("settings"))
    pools = ("global",) if kind == "calibrate" else tuple(config.get("pools") or ("local", "global"))
    used = ((split,), None if names is None else tuple(names), pools, config.get("on_error") == "skip")
    found = [Need(key, value, role, *used) if role == "benchmark" else Need(key, value, role) for key, value, role in _texts(config)]
    return (*found, *(Need(f"suites.{name}", folder, "suite") for name, folder in (config.get("suites") or {}).items()))


def _of_suite(need: Need) -> str:
    """Of its annotations, and not of the many images that they name."""
    from umr.data.fingerprint import fingerprint

    if not Path(need.value).exists():
        return MISSING
    suite = _open_suite(need)
    return fingerprint(suite.files, suite.root)


def _open_suite(need: Need) -> Suite:
    from umr.evaluation.suites import open_suite

    return open_suite(need.key.removeprefix("suites."), Path(need.value))


def _of_recipe(recipe: dict[str, Any]) -> Iterator[Need]:
    path = recipe["model"]["path"]
    if not references(path):
        yield Need("model.path", path, "model")
    template = recipe["model"].get("template") or ""
    if template.endswith((".json", *PROMPTS_SUFFIXES)):
        yield Need("model.template", template, "file")
    for number, section in enumerate(recipe["data"]):
        path, key = section["path"], f"data.{number}.path"
        if references(path):
            continue
        if section["kind"] in ("mbeir", "scored", "text_retrieval"):
            settings = section.get("settings") if section["kind"] == "mbeir" else None  # scored lists are of tasks, not of files
            skips = section.get("on_error") == "skip"
            yield Need(key, path, "benchmark", ("train",), None if settings is None else tuple(settings), ("global",), skips)
        else:
            yield Need(key, path, "file")
    for key, value, role in _texts({"data": recipe["data"], "loss": recipe.get("loss")}):
        yield Need(key, value, role)


def _texts(value: Any, place: str = "", name: str = "") -> Iterator[tuple[str, str, Role]]:
    """Every text under a key of `_ROLES` that is not a reference to a stage."""
    if isinstance(value, str) and name in _ROLES and not references(value) and (name, value) != ("prompts", ZERO_SHOT):
        yield place, value, _ROLES[name]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _texts(child, f"{place}.{key}" if place else str(key), name if isinstance(value, list) else str(key))


def missing(needs: Iterable[tuple[str, Need]], sources: Mapping[str, str]) -> list[str]:
    """What is not there, a line for each thing, with where it comes from and which stages need it.

    Args:
        needs: names of stages with what each needs.
        sources: where paths from outside come from.
    """
    found: dict[str, list[str]] = {}
    for stage, need in needs:
        for line in dict.fromkeys(_missing(need, sources)):
            if stage not in found.setdefault(line, []):
                found[line].append(stage)
    more = {line: f" and {len(stages) - _NAMED} more" if len(stages) > _NAMED else "" for line, stages in found.items()}
    return [f"{line}; needed by {', '.join(stages[:_NAMED])}{more[line]}" for line, stages in found.items()]


def _missing(need: Need, sources: Mapping[str, str]) -> list[str]:
    path = need.path
    if path is None:
        return []
    origin = next((origin for known, origin in sources.items() if path.is_relative_to(Path(known))), None)
    comes = f"; it comes from {origin}" if origin else ""
    if need.role == "model":
        fine = (path / "config.json").is_file() or (path / "adapter_config.json").is_file() or (path / "modules.json").is_file()
        return [] if fine else [f"{path}: neither a model folder nor a hub id such as owner/name{comes}"]
    if need.role in ("file", "suite") and not path.exists():
        return [f"{path}: does not exist{comes}"]
    if need.role == "file":
        return []
    if need.role == "suite":
        try:
            _open_suite(need)
        except DataError as error:
            return [f"{error}{comes}"]
        return []
    return [f"{file}: {what}{comes}" for file, what in _missing_of_benchmark(path, need)]


def _missing_of_benchmark(root: Path, need: Need) -> Iterator[tuple[Path, str]]:
    if (root / CORPUS).is_file():
        yield from _missing_of_texts(root, need)
        return
    if not (root / "query").is_dir():
        what = "a benchmark folder has query/, cand_pool/, qrels/, instructions/ and its images, or corpus.jsonl, queries.jsonl and qrels/"
        yield root / "query", f"does not exist; {what}"
        return
    from umr.data.mbeir import MBeir

    tree = MBeir(root)
    for split in need.splits:
        files = set(_train_files(tree, need) if split == "train" else _test_files(tree, split, need))
        if not tree.settings(split) and need.settings is None and not files:
            yield root / "query" / split / f"mbeir_*_{split}.jsonl", "no such file"
        for file in sorted(files):
            if not file.is_file():
                yield file, "does not exist"
            elif "cand_pool" in file.parts and (absent := _missing_media(file, root, need.skips)) is not None:
                yield absent, f"named in {file.name} but does not exist"
    instructions = root / "instructions" / "query_instructions.tsv"
    if not instructions.is_file() and not (root / "instructions").is_dir():
        yield instructions, "does not exist"


def _missing_of_texts(root: Path, need: Need) -> Iterator[tuple[Path, str]]:
    if not (root / QUERIES).is_file():
        yield root / QUERIES, "does not exist"
        return
    tree = TextRetrieval(root)
    for path in (tree.qrels_path(tree.setting, split) for split in need.splits):
        if not path.is_file():
            yield path, "does not exist"


def _train_files(tree: Any, need: Need) -> Iterator[Path]:
    yield tree.global_pool_path("train")
    if need.settings is not None:
        yield from (tree.query_path(name, "train") for name in need.settings)
    elif tree.settings("train"):
        yield from (tree.query_path(one, "train") for one in tree.settings("train"))
    else:
        yield tree.root / "query" / "union_train" / "mbeir_union_up_train.jsonl"


def _test_files(tree: Any, split: str, need: Need) -> Iterator[Path]:
    """Of every setting of which anything is there: a partial download has some of its files."""
    named = [one.name for one in tree.settings(split)]
    judged = (tree.root / "qrels" / split).glob(f"mbeir_*_{split}_qrels.txt")
    named += [file.name.removeprefix("mbeir_").removesuffix(f"_{split}_qrels.txt") for file in judged]
    for name in need.settings if need.settings is not None else named:
        yield tree.query_path(name, split)
        yield tree.qrels_path(name, split)
        if "local" in need.pools:
            yield tree.pool_path(name, split)
    if "global" in need.pools and (named or need.settings):
        yield tree.global_pool_path(split)


def _missing_media(pool: Path, root: Path, skips: bool) -> Path | None:
    """The first image or video of a pool's first lines that is not there: it says that an archive is not unpacked.

    With `skips`, where lines without their image are left out, only if all of them are missing.
    """
    import json

    from umr.data.mbeir_records import media_path

    absent, present = [], False
    with pool.open("rb") as lines:
        for line in islice(lines, _SAMPLED_MEDIA):
            try:
                path = media_path(json.loads(line), root)
            except (ValueError, AttributeError, TypeError, KeyError):
                continue  # malformed lines are for `umr check-data`
            if path is not None:
                present |= path.is_file()
                absent += [] if path.is_file() else [path]
    return absent[0] if absent and not (skips and present) else None
