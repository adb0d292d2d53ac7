"""One hash that stands for a set of data files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from umr.errors import DataError


def fingerprint(paths: Iterable[Path], root: Path) -> str:
    """Hash over name, size and content of text files; images count by being referred to in them and are not read.

    Args:
        paths: files (JSON lines, tables, judgements) in any order.
        root: folder that names are taken relative to, so that a moved copy keeps its fingerprint.

    Returns:
        32 hexadecimal digits.

    Raises:
        DataError: a file cannot be read.
    """
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        total.update(f"{name}\0{size}\0{content}\n".encode())
    return total.hexdigest()[:32]
