"""Every file below a folder, in a fixed order, each with what the file system says of it or why it is not read."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from umr.errors import DataError

HIDDEN = "is hidden (its name or a folder's begins with a dot)"
_ESCAPED = re.compile(rb"\\(\\|x[0-9a-f]{2})")
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(frozen=True, slots=True)
class Found:
    """One file.

    Attributes:
        path: below the root, as `shown` writes it.
        size: bytes; 0 where unknown.
        modified_ns: modification time; 0 where unknown.
        problem: why it is not to be read; `""` for a regular file that may be.
    """

    path: str
    size: int
    modified_ns: int
    problem: str = ""


@dataclass(frozen=True)
class Walked:
    """What a folder holds.

    Attributes:
        files: ordered by path.
        closed: folders that could not be listed, with why; what is in them is unknown, not gone.
    """

    files: list[Found]
    closed: dict[str, str]


def walk(root: Path, *, hidden: bool = False, leave_out: Path | None = None) -> Walked:
    """List a folder with all folders below it.

    Symbolic links are not followed: what they point to is found under its own name, or lies outside. Hidden files are listed
    with that as their problem, so that the numbers add up.

    Args:
        root: the folder.
        hidden: whether files whose name, or a folder's, begins with a dot may be read.
        leave_out: a folder that is not looked into, such as the collection's own.

    Raises:
        DataError: `root` is no folder that can be listed.
    """
    root = root.absolute()
    if not root.is_dir():
        raise DataError(f"{root}: {'is not a folder' if root.exists() else 'does not exist'}")
    own = os.fsencode(leave_out.resolve()) if leave_out is not None else None
    closed: dict[str, str] = {}
    files: list[Found] = []
    waiting: list[tuple[bytes, bool]] = [(b"", False)]
    while waiting:
        folder, dotted = waiting.pop()
        here = os.fsencode(root) + b"/" + folder
        if own is not None and os.path.realpath(here) == own:
            continue
        try:
            with os.scandir(here) as listing:
                entries = list(listing)
        except OSError as error:
            if not folder:
                raise DataError(f"{root}: cannot be listed ({error.strerror})") from error
            closed[shown(folder)] = f"cannot be listed ({error.strerror})"
            continue
        for entry in entries:
            name = folder + b"/" + entry.name if folder else entry.name
            out_of_sight = dotted or (entry.name.startswith(b".") and not hidden)
            if _is_folder(entry):
                waiting.append((name, out_of_sight))
            else:
                files.append(_found(entry, name, out_of_sight))
    return Walked(sorted(files, key=lambda file: file.path), closed)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _found(entry: os.DirEntry[bytes], name: bytes, out_of_sight: bool) -> Found:
    try:
        about = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Found(shown(name), 0, 0, f"cannot be read ({error.strerror})")
    if stat.S_ISLNK(about.st_mode):
        problem = "is a symbolic link; links are not followed"
    elif not stat.S_ISREG(about.st_mode):
        problem = f"is {_KINDS.get(stat.S_IFMT(about.st_mode), 'something else')}, not a regular file"
    else:
        problem = HIDDEN if out_of_sight else ""
    return Found(shown(name), about.st_size, about.st_mtime_ns, problem)


def shown(path: bytes) -> str:
    r"""A path as text: bytes that are no UTF-8, and control characters, as `\xNN`; a backslash as `\\`. `real` undoes it.

    Example:
        >>> shown(b"caf\xe9/a.png")
        'caf\\xe9/a.png'
    """
    return "".join(_shown(path))


def _shown(path: bytes) -> Iterator[str]:
    for character in path.decode("utf-8", "surrogateescape"):
        if character == "\\":
            yield "\\\\"
        elif unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            yield "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
        else:
            yield character


def real(path: str) -> Path:
    """The path that `shown` wrote."""
    found = _ESCAPED.sub(lambda match: b"\\" if match[1] == b"\\" else bytes([int(match[1][1:], 16)]), path.encode())
    return Path(os.fsdecode(found))
