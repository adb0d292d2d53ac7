"""Numbers as they are written, on pages and at the terminal alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umr.study.statistics import DRAWS

MARK = "*"
"""Beside a number that differs from the published way of measuring."""


def percent(value: float) -> str:
    """One digit after the point."""
    return f"{value:.1f}"


def score(found: Mapping[str, Any]) -> str:
    """A mean with its interval, and the mark where it has stamps."""
    return f"{found['mean']:.1f}{MARK if found['stamps'] else ''} [{found['low']:.1f}, {found['high']:.1f}]"


def difference(found: Mapping[str, float]) -> str:
    """The same with signs."""
    return f"{found['mean']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"


def p_value(value: float) -> str:
    """Four digits; below what so many draws can tell, that bound."""
    return f"{value:.4f}" if value >= 2 / DRAWS else f"< {2 / DRAWS:.4f}"
