"""One short hash for what a stage was made from: its config, the product of another stage, or files from outside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MISSING = "missing"
_READ_UP_TO = 1 << 20
"""Files from outside are known by their content up to this size, and by size and date beyond: M-BEIR's tables are gigabytes."""
_TREE = ("instructions", "query", "cand_pool", "qrels")


def of_config(kind: str, config: dict[str, Any]) -> str:
    """Hash of what a stage does: 16 hexadecimal digits. References to other stages count by name."""
    return _short(json.dumps([kind, config], sort_keys=True, ensure_ascii=False).encode())


def of_product(path: Path) -> str:
    """Hash over names and contents of a product, a file or a folder, so that equal products are known as equal.

    A World counts by the digest that it carries: its images need not be read again.
    """
    world = path / "world.json"
    if world.is_file():
        return _short(json.loads(world.read_text("utf-8"))["sha256"].encode())
    return _short("".join(f"{name}\0{_content(file)}\n" for name, file in _files(path)).encode())


def of_source(path: Path) -> str:
    """Hash of a file or folder from outside, without reading much; `MISSING` where there is nothing.

    Small files count by content, large ones by size and date of change. Of a benchmark folder the tables count and not the images
    that they name; of a World, `world.json`.
    """
    if not path.exists():
        return MISSING
    if (path / "world.json").is_file():
        return of_product(path)
    parts = [path / name for name in _TREE] if (path / "query").is_dir() else [path]
    lines = (f"{name}\0{_glance(file)}\n" for part in parts if part.exists() for name, file in _files(part))
    return _short("".join(lines).encode())


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    found: Iterable[Path] = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in found:
        yield file.relative_to(path.parent if path.is_file() else path).as_posix(), file


def _content(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _glance(file: Path) -> str:
    about = file.stat()
    return _content(file) if about.st_size <= _READ_UP_TO else f"{about.st_size}/{about.st_mtime_ns}"


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
