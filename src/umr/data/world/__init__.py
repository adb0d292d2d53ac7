"""World: a synthetic benchmark in M-BEIR's file layout, made from a seed and nothing else.

Scenes of coloured shapes give all eight M-BEIR task types and text -> video; see `docs/world.md`.

Example:
    >>> from pathlib import Path
    >>> from umr.data.world import generate
    >>> summary = generate(Path("world"), size="tiny", seed=0)      # doctest: +SKIP
"""

from __future__ import annotations

from umr.data.world.generator import VERSION, WorldSummary, generate
from umr.data.world.settings import SETTINGS, Setting, Size
from umr.data.world.texts import iter_texts
from umr.data.world.truth import unlabelled_positives

__all__ = ["SETTINGS", "VERSION", "Setting", "Size", "WorldSummary", "generate", "iter_texts", "unlabelled_positives"]
