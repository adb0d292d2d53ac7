"""Do engines give the same vectors? The golden items through each, compared with the first."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umr.engines.answers import Answers, Engine
from umr.engines.comparing import TOP, Bounds, Comparison, compare
from umr.engines.golden import VERSION, Golden, golden_items
from umr.engines.http_api import HttpApi
from umr.engines.local import OURS, SENTENCE_TRANSFORMERS, Ours, PlainSentenceTransformer
from umr.errors import RecipeError, UmrError
from umr.models import backbone

BOUNDS = {"float32": Bounds(1e-4, 0.9999), "bfloat16": Bounds(0.01, 0.999), "float16": Bounds(0.01, 0.999)}
"""What passes, by the weights' number type."""


@dataclass
class Check:
    """What came of it.

    Attributes:
        model: that was asked about.
        dtype: of the weights in the engines of this process.
        reference: name of the engine that the others are compared with.
        about: what is known of it.
        rows: the golden items that the reference embedded.
        left_out: why the reference has no vector for others.
        comparisons: one for each of the other engines.
    """

    model: str
    dtype: str
    reference: str
    about: dict[str, str]
    rows: list[Golden]
    left_out: dict[str, str]
    comparisons: list[Comparison]

    @property
    def passes(self) -> bool:
        """All engines do."""
        return all(one.passes for one in self.comparisons)

    def content(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "model": self.model,
            "dtype": self.dtype,
            "golden_version": VERSION,
            "passes": self.passes,
            "reference": {"engine": self.reference, **self.about, "left_out": self.left_out},
            "items": [
                {"name": row.name, "modality": row.item.modality, "side": row.side, "instruction": row.instruction} for row in self.rows
            ],
            "engines": [_content(one) for one in self.comparisons],
        }


def check(
    model: str | Path,
    engines: Sequence[str],
    *,
    dtype: str = "float32",
    tolerance: float | None = None,
    min_cosine: float | None = None,
    key: str | None = None,
    trust_remote_code: bool = False,
) -> Check:
    """Embed the golden items with several engines and compare.

    Args:
        model: folder or hub id, for the engines of this process.
        engines: each `ours`, `sentence-transformers`, or the address of a server (see `HttpApi`). The others are compared with the
            first; one alone is compared with ours.
        dtype: of the weights in this process.
        tolerance: largest difference of a component that passes. Default: by `dtype`, see `BOUNDS`.
        min_cosine: least cosine that passes; likewise.
        key: for servers.
        trust_remote_code: of `PlainSentenceTransformer`.

    Raises:
        RecipeError: an engine twice, nothing to compare with, or a setting without effect.
        ModelError: an unknown dtype, or the reference cannot be loaded or asked. What fails in the others is told in their comparison.
    """
    names = list(engines) if len(engines) > 1 or list(engines) == [OURS] else [OURS, *engines]
    _check_settings(names, key, trust_remote_code)
    backbone.pick_dtype(dtype)
    usual = BOUNDS[dtype]
    bounds = Bounds(usual.difference if tolerance is None else tolerance, usual.cosine if min_cosine is None else min_cosine)

    def start(name: str) -> Engine:
        if name == OURS:
            return Ours(model, dtype)
        return PlainSentenceTransformer(model, dtype, trust_remote_code) if name == SENTENCE_TRANSFORMERS else HttpApi(name, key)

    with tempfile.TemporaryDirectory(prefix="umr-check-") as folder:
        rows = golden_items(Path(folder))
        reference = start(names[0])
        expected = reference.embed(rows)
        known = [row for row in rows if row.name in expected.vectors]
        comparisons = [_asked(start, name, known, expected, bounds) for name in names[1:]]
    return Check(str(model), dtype, names[0], reference.about, known, expected.left_out, comparisons)


def _check_settings(names: list[str], key: str | None, trust_remote_code: bool) -> None:
    if len(names) == 1:
        raise RecipeError("there is nothing to compare ours with; name another engine, such as --engine sentence-transformers")
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(f"engine {twice[0]!r} is named twice; an engine compared with itself says nothing")
    for name in names:
        if name not in (OURS, SENTENCE_TRANSFORMERS) and "://" not in name:
            raise RecipeError(
                f"engine {name!r}: use {OURS}, {SENTENCE_TRANSFORMERS}, or the address of a server, such as http://127.0.0.1:8000"
            )
    if key is not None and not any("://" in name for name in names):
        raise RecipeError("a key has no effect without the address of a server; leave it out")
    if trust_remote_code and SENTENCE_TRANSFORMERS not in names:
        raise RecipeError(f"trust_remote_code has no effect without the engine {SENTENCE_TRANSFORMERS}; leave it out")


def _asked(start: Any, name: str, rows: list[Golden], expected: Answers, bounds: Bounds) -> Comparison:
    about: dict[str, str] = {}
    try:
        engine = start(name)
        about = engine.about
        return compare(rows, expected, name, about, engine.embed(rows), bounds)
    except UmrError as error:
        return Comparison(name, about, bounds, problem=str(error))


def _content(one: Comparison) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if one.differences:
        cosines = list(one.cosines.values())
        figures = {
            "cosine_min": min(cosines),
            "cosine_mean": sum(cosines) / len(cosines),
            "largest_difference": one.differences[one.worst],
            "worst": one.worst,
            f"overlap@{TOP}": one.overlap,
            "by_item": {name: {"cosine": one.cosines[name], "largest_difference": one.differences[name]} for name in one.cosines},
        }
    return {
        "engine": one.engine,
        **one.about,
        "passes": one.passes,
        "problem": one.problem,
        "tolerance": one.bounds.difference,
        "min_cosine": one.bounds.cosine,
        "compared": len(one.differences),
        "left_out": one.left_out,
        **figures,
    }
