"""Opening a file of the folder: a regular one only, read whole within a limit, or hashed as it streams by."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from umr.errors import DataError

_PIECE = 1 << 20


class Unreadable(DataError):
    """A file that cannot be opened now, but may be tomorrow."""


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; a link, or a pipe that would wait for ever, is refused.

    Raises:
        Unreadable: it cannot be opened or read, or is no regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Unreadable("is no regular file")
    with os.fdopen(handle, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror or error})") from error


def content_hash(file: BinaryIO) -> str:
    """Hash of all bytes of a file; the position is back at the beginning afterwards."""
    found = hashlib.blake2b(digest_size=16)
    file.seek(0)
    while piece := file.read(_PIECE):
        found.update(piece)
    file.seek(0)
    return found.hexdigest()


def read_whole(file: BinaryIO, limit: int, kind: str) -> bytes:
    """All bytes of a file of at most `limit`.

    Raises:
        DataError: it is larger.
    """
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise DataError(f"is {size} bytes, over the limit of {limit} for {kind}")
    file.seek(0)
    return file.read(limit + 1)[:limit]


def size_of(file: BinaryIO) -> int:
    """Bytes in an open file."""
    return os.fstat(file.fileno()).st_size
