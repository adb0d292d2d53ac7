"""How a search is to be done: its settings, and the refusal of those that would have no effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from umr.data.mbeir_records import modality_of
from umr.errors import RecipeError
from umr.search.filters import Filter

if TYPE_CHECKING:
    from umr.evaluation.calibration import Calibration
    from umr.mining.fill import PairScorer
    from umr.search.asking import Question

Mode: TypeAlias = Literal["vector", "words", "hybrid"]

MODALITIES = ("text", "image", "image,text", "video", "video,text")
"""What a row may be."""
MOST = 10_000
"""offset + k may not exceed this: whoever wants everything reads the table."""
DEPTH = 200
"""Results of each of the two lists that a hybrid search merges."""
RERANK_DEPTH = 50
PER_GROUP = 1


@dataclass(frozen=True)
class Options:
    """How to search. `None` stands for what was not given; the properties say what is done then.

    Attributes:
        k: results wanted.
        offset: results passed over: pages are slices of one order.
        mode: `"vector"`: by cosine; `"words"`: by BM25 over the rows' text, without the model; `"hybrid"`: both, merged by reciprocal
            ranks.
        where: conditions on fields.
        modalities: only rows of these.
        depth: results of each list that a hybrid search merges. `DEPTH` by default, and offset + k may not exceed it, since deeper
            lists would be another order.
        words_weight: of full text in a hybrid search, vectors having 1. Default 1.
        reranker: orders the first results anew.
        rerank_depth: how many. Default `RERANK_DEPTH`.
        rerank_seconds: stop reranking after this time; what was not reached keeps its place beneath.
        rerank_weight: order what was reranked by cosine (calibrated, where there is a calibration) + weight * P(Yes). In a vector search
            1 by default, as in `umr eval`;
            elsewhere P(Yes) decides alone by default.
        calibration: offsets by modality that are added to cosines.
        group_by: `"source"` or a metadata field: of rows that share its value only the best are kept.
        per_group: how many. Default 1.
    """

    k: int = 10
    offset: int = 0
    mode: Mode = "vector"
    where: Filter = field(default_factory=Filter)
    modalities: tuple[str, ...] | None = None
    depth: int | None = None
    words_weight: float | None = None
    reranker: PairScorer | None = None
    rerank_depth: int | None = None
    rerank_seconds: float | None = None
    rerank_weight: float | None = None
    calibration: Calibration | None = None
    group_by: str | None = None
    per_group: int | None = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_effects(self)
        if self.mode == "hybrid" and self.offset + self.k > self.list_depth:
            raise RecipeError(
                f"offset + k = {self.offset + self.k} is beyond the depth of {self.list_depth} that was merged; give a larger depth"
            )

    @property
    def wanted(self) -> int:
        """Results that are looked for: those of this page and the ones before."""
        return self.offset + self.k

    @property
    def list_depth(self) -> int:
        """Of each list of a hybrid search."""
        return DEPTH if self.depth is None else self.depth

    @property
    def first(self) -> int:
        """Results that are reranked."""
        if self.reranker is None:
            return 0
        return RERANK_DEPTH if self.rerank_depth is None else self.rerank_depth

    @property
    def yes_weight(self) -> float | None:
        """Of P(Yes) beside the cosine; None where P(Yes) decides alone."""
        return 1.0 if self.rerank_weight is None and self.mode == "vector" else self.rerank_weight

    def check(self, question: Question) -> None:
        """Raise `RecipeError` where the question and these settings do not fit each other."""
        if self.mode == "vector":
            return
        if not question.words.strip():
            raise RecipeError(f"mode {self.mode} looks for words, and the query has none; give a text, or search by vector")
        if self.mode == "words":
            if question.wanted.modality != "text" and self.reranker is None:
                raise RecipeError("mode words reads text alone, so that images and videos have no effect; take hybrid or vector")
            if question.avoids:
                raise RecipeError("mode words cannot subtract, so that minus has no effect; take hybrid or vector")


def modalities_of(asked: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Canonical names of modalities, each once; None stands for all.

    Raises:
        RecipeError: an unknown one, or an empty list, which nothing could pass.
    """
    if asked is None:
        return None
    names = [asked] if isinstance(asked, str) else list(asked)
    if not names:
        raise RecipeError(f"modalities is empty, which nothing can pass; leave it out, or name some of {', '.join(MODALITIES)}")
    found = [name if name in MODALITIES else modality_of(name) for name in names]
    if None in found:
        raise RecipeError(f"unknown modality {names[found.index(None)]!r}; there are {'; '.join(MODALITIES)}")
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _check_numbers(options: Options) -> None:
    for name, low in {"k": 1, "offset": 0, "depth": 1, "rerank_depth": 1, "per_group": 1}.items():
        value: Any = getattr(options, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise RecipeError(f"{name} must be a whole number of at least {low}, not {value!r}")
    if (weight := options.rerank_weight) is not None and not (math.isfinite(weight) and weight >= 0):
        raise RecipeError(f"rerank_weight must be 0 or more, not {weight}: less would put what the reranker prefers last")
    if (weight := options.words_weight) is not None and not (math.isfinite(weight) and weight > 0):
        raise RecipeError(f"words_weight must be above 0, not {weight}; without words, search in mode vector")
    if options.rerank_seconds is not None and not options.rerank_seconds > 0:
        raise RecipeError(f"rerank_seconds must be above 0, not {options.rerank_seconds}; to rerank nothing, leave the reranker out")
    if options.mode not in get_args(Mode):
        raise RecipeError(f"mode must be one of {', '.join(get_args(Mode))}, not {options.mode!r}")
    for name in ("wanted", "list_depth", "first"):
        if getattr(options, name) > MOST:
            raise RecipeError(f"{'offset + k' if name == 'wanted' else name} = {getattr(options, name)} is beyond the limit of {MOST}")


def _check_effects(options: Options) -> None:
    """Refuse settings without effect."""
    for name in ("depth", "words_weight"):
        if getattr(options, name) is not None and options.mode != "hybrid":
            raise RecipeError(f"{name} has no effect in mode {options.mode}; leave it out, or search in mode hybrid")
    for name in ("rerank_depth", "rerank_seconds", "rerank_weight"):
        if getattr(options, name) is not None and options.reranker is None:
            raise RecipeError(f"{name} has no effect without a reranker; leave it out, or give one")
    if options.mode == "words" and options.rerank_weight is not None:
        raise RecipeError("rerank_weight has no effect in mode words, which has no cosines; leave it out")
    if options.mode == "words" and options.calibration is not None:
        raise RecipeError("calibration has no effect in mode words, which has no cosines; leave it out")
    if options.per_group is not None and options.group_by is None:
        raise RecipeError("per_group has no effect without group_by; leave it out, or say what to group by")
