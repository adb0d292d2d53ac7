"""An exception as the one line that its user reads."""

from __future__ import annotations

import traceback
from pathlib import Path

from umr.errors import UmrError


def usage_line(error: Exception) -> str | None:
    """The line for a wrong command line, such as an unknown option; None for every other error.

    It is empty when nothing was asked for: the help, which typer has shown by then, says it all.
    """
    if not hasattr(error, "format_message"):  # typer's usage errors have it; their class has moved between its releases
        return None
    message = _one_line(error.format_message())
    context = getattr(error, "ctx", None)
    return message and f"{message} (see `{context.command_path if context else 'umr'} --help`)"


def what_went_wrong(error: Exception) -> str:
    """The line for an error in a verb: its own message where it is meant for users, else its kind and place."""
    if isinstance(error, UmrError):
        return _one_line(str(error))
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror.lower()}: {_name(error.filename)}"
    return f"unexpected {type(error).__name__}{_place(error)}: {_one_line(str(error)) or 'no message'}; --debug shows the traceback"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _name(file: object) -> str:
    return file.decode(errors="replace") if isinstance(file, bytes) else str(file)


def _place(error: Exception) -> str:
    """` in umr/store/view.py, line 12`: the innermost of our own lines, which says more than one inside a library."""
    root = Path(__file__).parents[2]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(root / "umr") and not path.is_relative_to(root / "umr" / "cli" / "__init__.py"):
            return f" in {path.relative_to(root)}, line {frame.lineno}"
    return ""
