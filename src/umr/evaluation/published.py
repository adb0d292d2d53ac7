"""M-BEIR as published: its settings, the sizes of its pools, and the scores of published systems (`published.yaml`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from umr.data.mbeir_records import TASKS
from umr.evaluation.declarations import main_metric

_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Declared:
    """One of M-BEIR's 16 settings.

    Attributes:
        name: `"<dataset>_task<k>"`.
        dataset_id: the number before the colon in its qids.
        task: k.
        pool_size: candidates in its local pool (of MSCOCO in that of the test split).
    """

    name: str
    dataset_id: int
    task: int
    pool_size: int

    @property
    def modalities(self) -> tuple[str, str]:
        """Of the queries and of what they look for."""
        return TASKS[self.task]

    @property
    def metric(self) -> str:
        """The metric reported: `"hit@5"`, or `"hit@10"`."""
        return main_metric(self.name)


@dataclass(frozen=True)
class System:
    """Scores of a published system over one pool, in percent.

    Attributes:
        name: of the system.
        pool: `"local"` or `"global"`.
        source: where the scores were printed.
        scores: by setting, in M-BEIR's order.
        average: as printed, which may differ from the mean of the scores in its last digit.
    """

    name: str
    pool: str
    source: str
    scores: dict[str, float]
    average: float


@cache
def settings() -> dict[str, Declared]:
    """M-BEIR's settings by name, in the order of UniIR's tables."""
    return {name: Declared(name, dataset, int(name.rsplit("_task", 1)[1]), size) for name, dataset, size in _content()["settings"]}


@cache
def systems() -> tuple[System, ...]:
    """The systems whose scores are known, those over local pools first."""
    return tuple(System(**{**row, "scores": dict(zip(settings(), row["scores"], strict=True))}) for row in _content()["systems"])


def is_mbeir(names: Sequence[str]) -> bool:
    """Whether any of these settings is one of M-BEIR's."""
    return any(name in settings() for name in names)


def pool_size(setting: str, pool: str, split: str) -> int | None:
    """How many candidates a pool of M-BEIR has; `None` where nothing is published about it.

    Args:
        setting: whose search.
        pool: `"local"`, or the name of a global pool.
        split: MSCOCO and the global pool have another for each split, and sizes are known of test.
    """
    declared = settings().get(setting)
    if declared is None or (split != "test" and (pool != "local" or setting.startswith("mscoco"))):
        return None
    return declared.pool_size if pool == "local" else int(_content()["global"])


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(_FILE.read_text("utf-8"))
    return content
