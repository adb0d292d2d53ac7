"""Means over settings: all of them, and those of one kind of search. Each says which settings it is a mean of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from umr.evaluation import published

GROUPS = ("all", "single-modal queries", "multi-modal queries", "S->S", "S->M", "M->S", "M->M")
"""Kinds of search by query and candidate: S is text, an image or a video, M is an image with text (UniIR, MM-Embed)."""


@dataclass(frozen=True)
class Average:
    """An unweighted mean over settings of each one's main metric, in percent.

    Attributes:
        score: the mean.
        settings: what it is a mean of.
        missing: settings of M-BEIR that belong to it and were not measured; empty for other benchmarks.
    """

    score: float
    settings: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def counts(self) -> str:
        """`"3"`, or `"3 of 16"` where some are missing."""
        done = len(self.settings)
        return f"{done} of {done + len(self.missing)}" if self.missing else str(done)


def groups_of(query: str, candidate: str) -> tuple[str, ...]:
    """The members of `GROUPS` that a search of these modalities belongs to."""
    kinds = tuple("M" if "," in modality else "S" for modality in (query, candidate))
    queries = "single-modal queries" if kinds[0] == "S" else "multi-modal queries"
    return "all", queries, "->".join(kinds)


def averages(scores: Mapping[str, float], tasks: Mapping[str, str]) -> dict[str, Average]:
    """Means by group; a group without settings is not there.

    Args:
        scores: main metric by setting, in percent.
        tasks: by setting, such as `"image,text -> image"`.
    """
    names = published.settings() if published.is_mbeir(list(scores)) else {}
    whole: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name, declared in names.items():
        for group in groups_of(*declared.modalities):
            whole[group].append(name)
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in scores:
        query, arrow, candidate = tasks[name].partition(" -> ")
        for group in groups_of(query, candidate) if arrow else ("all",):
            found[group].append(name)
    return {
        group: Average(
            sum(scores[name] for name in found[group]) / len(found[group]),
            tuple(found[group]),
            tuple(name for name in whole[group] if name not in scores),
        )
        for group in GROUPS
        if found[group]
    }
