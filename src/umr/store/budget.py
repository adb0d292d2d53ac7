"""How much memory a search may take: sizes as people write them, and what the process holds already."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

from umr.errors import RecipeError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_bytes(text: str | int) -> int:
    """Bytes in a size such as `"8GiB"`, `"500MB"`, `"1.5 GiB"` or a plain number of bytes.

    Raises:
        RecipeError: something else, or nothing at all.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", str(text), re.IGNORECASE)
    if match is None or match[2].upper() not in _UNITS or not (size := int(float(match[1]) * _UNITS[match[2].upper()])):
        raise RecipeError(f"memory must be a size such as 8GiB or 500MB, not {str(text)!r}")
    return size


def size_text(count: int) -> str:
    """A number of bytes for people, rounded up, in a form that `parse_bytes` reads."""
    return f"{-(-count // 2**20)}MiB" if count < 10 * 2**30 else f"{-(-count * 10 // 2**30) / 10:g}GiB"


def resident() -> int:
    """Bytes of memory that this process holds now; where the system does not say, the most it ever held."""
    pages = Path("/proc/self/statm")
    if pages.is_file():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
