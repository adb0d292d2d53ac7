"""Reading media files whole, with one clear error for each way in which that fails."""

from __future__ import annotations

import os
from pathlib import Path

from umr.errors import MediaError


def check_file(path: Path, limit: int, kind: str) -> None:
    """Raise `MediaError` unless `path` is a readable file of 1 to `limit` bytes. `kind` is `"image"` or `"video"`."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise MediaError(f"{path}: {kind} file does not exist") from error
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: {kind} file cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not path.is_file():
        raise MediaError(f"{path}: is {'a directory' if path.is_dir() else 'not a regular file'}, not {_with_article(kind)}")
    if not os.access(path, os.R_OK):
        raise MediaError(f"{path}: no permission to read this {kind} file")
    check_size(size, limit, str(path), kind)


def check_size(size: int, limit: int, name: str, kind: str) -> None:
    """Raise `MediaError` unless `size` is 1 to `limit` bytes."""
    if size == 0:
        raise MediaError(f"{name}: is empty (zero bytes), not {_with_article(kind)}")
    if size > limit:
        raise MediaError(f"{name}: {size} bytes are over the limit of {limit} for {_with_article(kind)}")


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind == "image" else f"a {kind}"


def read_file(path: Path, limit: int, kind: str) -> bytes:
    """All bytes of a file that passes `check_file`."""
    check_file(path, limit, kind)
    try:
        return path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror or error})") from error
