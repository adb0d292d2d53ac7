"""Scores that papers report on the suites, to stand beside what is measured, and the sizes of the published tests."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

from umr.evaluation.suites.result import Published, Sizes


def published_scores(suite: str) -> Published:
    """Scores in percent: task (or mean of tasks) -> system -> metric; empty where there are none."""
    found: Published = _content()["scores"].get(suite, {})
    return found


def published_sizes(suite: str) -> Sizes:
    """Numbers of `queries` and `candidates` by task, where they are certain."""
    found: Sizes = _content()["sizes"].get(suite, {})
    return found


def _content() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(resources.files(__package__).joinpath("published.yaml").read_text("utf-8"))
    return content
