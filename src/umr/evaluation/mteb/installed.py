"""One clear error where the extra is missing."""

from __future__ import annotations

from importlib.util import find_spec

from umr.errors import ModelError


def check_installed() -> None:
    """Raise `ModelError` unless there is a package mteb."""
    if find_spec("mteb") is None:
        raise ModelError('mteb is not installed: pip install "umr[mteb]"')
