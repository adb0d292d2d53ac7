"""The kinds of stages that measure a model or choose something by measuring: the keys each takes, and what it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from umr.pipelines.stage_keys import BatchTokens, Dtype, Memory, Metrics, Pools, StageKeys, Wording


class EvalStage(StageKeys):
    """Measure a model, with or without a reranker on top."""

    product: ClassVar[str] = "result.json"
    kind: Literal["eval"]
    model: str
    benchmark: str | Annotated[list[str], Field(min_length=1)]
    """An M-BEIR tree, a text-retrieval set, or a list of one tree and any sets, which make one report."""
    pools: Pools = Field(["local", "global"])
    tasks: list[str] | None = None
    split: Literal["val", "test"] = "test"
    instruction: Wording = "first"
    depth: int = Field(50, ge=10)
    on_error: Literal["fail", "skip"] = "fail"
    dtype: Dtype = "float32"
    batch_tokens: BatchTokens = None
    reranker: str | None = None
    prompts: str | None = None
    """Ask the reranker by this prompts file, or `zero-shot`; its own template when null."""
    rerank_depth: int = Field(50, ge=1)
    weight: float = Field(1.0, ge=0)
    """Of P(Yes) beside the cosine, for every setting."""
    weights: str | None = None
    """A file of weights by setting, as a `fuse` stage writes it, in place of `weight`."""
    weights_of_another_model: bool = False
    """Take them although they were chosen for another model, such as a student's teacher."""
    modality_filter: bool = False
    """Of the global pool, rank only candidates of the modality that a task looks for."""
    calibration: str | None = None
    """A file of offsets by modality for the global pool, as a `calibrate` stage writes it."""
    own_positives: bool = False
    """Count right answers of the query's own dataset only."""
    memory: Memory = None
    """Search within this much, such as `8GiB`; without a limit where null. The result is the same."""

    @model_validator(mode="after")
    def _check(self) -> EvalStage:
        if self.weights_of_another_model and self.weights is None:
            raise ValueError("weights_of_another_model has no effect without weights")
        keys = ("prompts", "rerank_depth", "weight", "weights")
        if idle := [key for key in keys if key in self.model_fields_set and self.reranker is None]:
            raise ValueError(f"{idle[0]} has no effect without a reranker")
        if self.weights is not None and "weight" in self.model_fields_set:
            raise ValueError("weight and weights say the same thing; give one of them")
        mixed = [key for key in ("modality_filter", "calibration") if getattr(self, key)]
        if mixed and "global" not in self.pools:
            raise ValueError(f"{mixed[0]} has no effect without the global pool")
        if len(mixed) > 1:
            raise ValueError("calibration has no effect with modality_filter, which ranks one modality alone")
        return self

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Write `result.json`, `hits.parquet` with a row for each query and pool, and `modality.png` for the global pool."""
        from umr.pipelines.measuring import measure

        return measure(config, out, vectors)


class SuitesStage(StageKeys):
    """Measure a model on zero-shot suites, with or without a reranker on top."""

    product: ClassVar[str] = "result.json"
    kind: Literal["suites"]
    model: str
    suites: Annotated[dict[str, str], Field(min_length=1)]
    """Folder of each suite, by its name."""
    on_error: Literal["fail", "skip"] = "fail"
    dtype: Dtype = "float32"
    batch_tokens: BatchTokens = None
    reranker: str | None = None
    rerank_depth: int = Field(10, ge=1, le=50)
    weight: float = Field(0.1, ge=0)
    """Of P(Yes) beside the cosine."""

    @model_validator(mode="after")
    def _check(self) -> SuitesStage:
        from umr.evaluation.suites.registry import SUITES

        if unknown := sorted(set(self.suites) - set(SUITES)):
            raise ValueError(f"there is no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
        if idle := [key for key in ("rerank_depth", "weight") if key in self.model_fields_set and self.reranker is None]:
            raise ValueError(f"{idle[0]} has no effect without a reranker")
        return self

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Write `result.json`."""
        from umr.pipelines.measuring import measure_suites

        return measure_suites(config, out, vectors)


class FuseStage(StageKeys):
    """Choose the weight of the reranker for each setting, on validation queries."""

    product: ClassVar[str] = "weights.json"
    kind: Literal["fuse"]
    model: str
    reranker: str
    prompts: str | None = None
    benchmark: str
    split: Literal["val", "train"] = "val"
    depth: int = Field(50, ge=1)
    pools: Pools = Field(["local", "global"])
    tasks: list[str] | None = None
    instruction: Wording = "first"
    on_error: Literal["fail", "skip"] = "fail"
    dtype: Dtype = "float32"
    memory: Memory = None
    batch_tokens: BatchTokens = None

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Write `weights.json`."""
        from umr.pipelines.measuring import choose

        return choose(config, out, vectors)


class CalibrateStage(StageKeys):
    """Choose what is added to the scores of each modality in the global pool, on validation queries."""

    product: ClassVar[str] = "calibration.json"
    kind: Literal["calibrate"]
    model: str
    benchmark: str
    tasks: list[str] | None = None
    instruction: Wording = "first"
    on_error: Literal["fail", "skip"] = "fail"
    dtype: Dtype = "float32"
    batch_tokens: BatchTokens = None

    def config(self, folder: Path) -> dict[str, Any]:
        """Its keys, and the split, which is always that of validation."""
        return {**super().config(folder), "split": "val"}

    @staticmethod
    def run(config: dict[str, Any], out: Path, vectors: Path) -> Metrics:
        """Write `calibration.json`."""
        from umr.pipelines.measuring import calibrated

        return calibrated(config, out, vectors)
