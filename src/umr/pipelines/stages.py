"""The kinds of stages: the keys each takes in a pipeline file, and the library function that it stands for.

A config is plain data in which products of other stages stand as `${name}`; `run` gets it with their paths in place.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from umr.pipelines import recipes
from umr.pipelines.measuring_stages import CalibrateStage, EvalStage, FuseStage, SuitesStage
from umr.pipelines.stage_keys import BatchTokens, Dtype, Metrics, StageKeys


class WorldStage(StageKeys):
    """Make a World."""

    product: ClassVar[str] = "world"
    kind: Literal["world"]
    size: Literal["mini", "tiny", "small", "medium"] = "tiny"
    seed: int = Field(0, ge=0)

    def config(self, folder: Path) -> dict[str, Any]:
        """Its keys, and the generator's version, which decides on the bytes as well."""
        from umr.data.world.generator import VERSION

        return {**super().config(folder), "version": VERSION}

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Write the tree; an interrupted one is begun anew."""
        from umr.data.world import generate

        made = generate(out / "world", config["size"], config["seed"], workers=min(8, os.cpu_count() or 1))
        return {"queries": made.queries, "candidates": made.candidates, "captions": made.captions, "text pairs": made.text_pairs}


class InitStage(StageKeys):
    """Make a checkpoint with random weights."""

    product: ClassVar[str] = "model"
    kind: Literal["init"]
    family: Literal["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "llava-next"] = "qwen3-vl"
    size: Literal["tiny", "small", "base"] = "tiny"
    texts: str
    """What the tokenizer is trained on: a World, a benchmark folder, `.txt` or `.jsonl`."""
    seed: int = 0

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Write the folder beside its place and move it there."""
        import shutil

        from umr.data.texts import read_texts
        from umr.models.tiny import make_checkpoint

        partial = out / "model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        if not (out / "model").exists():
            make_checkpoint(config["family"], partial, read_texts(Path(config["texts"])), config["size"], config["seed"])
            os.replace(partial, out / "model")
        return {}


class TrainStage(StageKeys):
    """Run a recipe, of an embedding model or of a reranker."""

    product: ClassVar[str] = "model"
    kind: Literal["train"]
    recipe: str
    """YAML file, relative to the pipeline file."""
    changes: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Values in place of the recipe's, by key: `training.steps`, `data.0.path`."""

    def config(self, folder: Path) -> dict[str, Any]:
        """The recipe with its changes. Raises `RecipeError`."""
        return {"recipe": recipes.resolved(folder / self.recipe, self.changes)}

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Train, in all processes; goes on from the last checkpoint."""
        from umr.training.run import train

        recipe = recipes.claimed(config["recipe"], out)
        train(recipe, out=out)
        record = json.loads((out / "run.json").read_text("utf-8"))
        return {key: record[key] for key in ("final_loss", "temperature", "steps", "queries_per_second") if key in record}


class MineStage(StageKeys):
    """Find hard negatives. All further keys are those of `umr.mining.settings.MineSettings`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    product: ClassVar[str] = "negatives"
    kind: Literal["mine"]
    model: str
    benchmark: str
    dtype: Dtype = "float32"
    batch_tokens: BatchTokens = None

    def config(self, folder: Path) -> dict[str, Any]:
        """Its keys, and the settings with their defaults."""
        from umr.mining.settings import MineSettings

        settings = MineSettings.model_validate(self.model_extra or {}).model_dump(mode="json")
        own = self.model_dump(mode="json", include={"model", "benchmark", "dtype", "batch_tokens"})
        return {**own, "settings": settings}

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Mine into `negatives/`, which resumes by itself."""
        from umr.bulk.crew import Crew
        from umr.mining.mine import mine
        from umr.mining.settings import MineSettings

        settings, more = MineSettings.model_validate(config["settings"]), {key: config[key] for key in ("dtype", "batch_tokens")}
        crew = Crew.of_every_gpu()
        found = mine(config["model"], Path(config["benchmark"]), out / "negatives", settings, vectors, **more, crew=crew)
        counts = json.loads((found / "mining.json").read_text("utf-8"))["queries"].values()
        return {name: sum(one[name] for one in counts) for name in ("all", "with_negatives", "negatives")}

    @staticmethod
    def fingerprint(product: Path) -> str:
        """Of the negatives; the audit beside them decides nothing."""
        from umr.mining.negatives import NegativeTable

        return NegativeTable(product).fingerprint


class ScoreStage(StageKeys):
    """Score recalled lists by a teacher. All further keys are those of `umr.mining.scoring.ScoreSettings`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    product: ClassVar[str] = "scores"
    kind: Literal["score"]
    model: str
    reranker: str
    benchmark: str

    def config(self, folder: Path) -> dict[str, Any]:
        """Both models, benchmark and the settings with their defaults."""
        from umr.mining.scoring import ScoreSettings

        settings = ScoreSettings.model_validate(self.model_extra or {}).model_dump(mode="json")
        return {"model": self.model, "reranker": self.reranker, "benchmark": self.benchmark, "settings": settings}

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Score into `scores/`, which resumes by itself."""
        from umr.bulk.crew import Crew
        from umr.mining.scores import ScoreTable
        from umr.mining.scoring import ScoreSettings, score

        settings = ScoreSettings.model_validate(config["settings"])
        table = score(
            config["model"], config["reranker"], Path(config["benchmark"]), out / "scores", settings, vectors, Crew.of_every_gpu()
        )
        return {"lists": len(ScoreTable(table))}

    @staticmethod
    def fingerprint(product: Path) -> str:
        """Of the lists, however they were written."""
        from umr.mining.scores import ScoreTable

        return ScoreTable(product).fingerprint


class MergeStage(StageKeys):
    """Put an adapter's weights into its base model."""

    product: ClassVar[str] = "model"
    kind: Literal["merge"]
    model: str
    adapter: str

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Write `model/`, which appears whole or not at all."""
        from umr.models.merging import merge

        if not (out / "model").exists():
            merge(config["model"], config["adapter"], out / "model")
        return {}


Stage = Annotated[
    WorldStage | InitStage | TrainStage | EvalStage | MineStage | ScoreStage | FuseStage | CalibrateStage | SuitesStage | MergeStage,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[Any]] = {
    "world": WorldStage,
    "init": InitStage,
    "train": TrainStage,
    "eval": EvalStage,
    "mine": MineStage,
    "score": ScoreStage,
    "fuse": FuseStage,
    "calibrate": CalibrateStage,
    "suites": SuitesStage,
    "merge": MergeStage,
}
EMBEDS = ("eval", "mine", "score", "fuse", "calibrate", "suites")
"""Kinds that write vectors of their model."""
