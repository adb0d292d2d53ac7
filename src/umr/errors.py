"""Every error a user can cause, each with one line that says what is wrong, where, and what to do.

The command line prints these without a traceback; anything else that escapes is a bug of ours.
"""

from __future__ import annotations


class UmrError(Exception):
    """Base of all errors with a user-facing message."""


class MediaError(UmrError):
    """An image or a video that cannot be opened, is broken, or exceeds a limit. Names the file."""


class DataError(UmrError):
    """A malformed record, a missing file, an id that points nowhere. Names file and line, or the id."""


class RenderError(UmrError):
    """An item that a template cannot render within its budgets."""


class ModelError(UmrError):
    """A checkpoint that cannot be loaded, saved, or used in the way asked for."""


class RecipeError(UmrError):
    """An unknown, contradictory or effect-less setting. Names the key."""


class StoreError(UmrError):
    """Vectors on disk that are missing, damaged, or made by another model."""
