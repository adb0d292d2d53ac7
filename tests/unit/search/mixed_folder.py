"""A folder of mixed files, some broken, with what must become of each: the real thing in small."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unit.search import small_files as small

FOLDERS = ("", "photos", "photos/2020", "papers", "films", "notes")

GOOD: dict[str, Callable[[int], bytes]] = {
    ".jpg": lambda seed: small.image(seed, "JPEG"),
    ".png": lambda seed: small.image(seed, "PNG"),
    ".webp": lambda seed: small.image(seed, "WEBP"),
    ".gif": lambda seed: small.image(seed, "GIF"),
    ".tiff": lambda seed: small.image(seed, "TIFF"),
    ".heic": lambda seed: small.image(seed, "HEIF"),
    ".txt": lambda seed: small.words(seed).encode(),
    ".md": lambda seed: f"# {small.words(seed, 2)}\n\n{small.words(seed, 40)}\n\n## More\n\n{small.words(seed + 1, 40)}\n".encode(),
    ".utf16.txt": lambda seed: small.words(seed).encode("utf-16"),
    ".JPG": lambda seed: small.image(seed, "PNG"),  # the wrong ending, the right content
    ".dat": lambda seed: small.image(seed, "GIF"),
}
SLOW: dict[str, Callable[[int], bytes]] = {
    ".pdf": lambda seed: small.pdf(small.words(seed, 4), small.words(seed + 1, 4)),
    ".mp4": lambda seed: small.video(seed % 4),
    ".mkv": lambda seed: small.video(seed % 4, 3.0, ".mkv"),
}
"""A process or a decoder each; one in twelve files."""
BROKEN: dict[str, Callable[[int], bytes]] = {
    ".jpg": lambda seed: small.image(seed, "JPEG")[:-200],
    ".png": lambda seed: b"",
    ".bomb.png": lambda seed: small.bomb(),
    ".latin1.txt": lambda seed: f"na{chr(239)}ve {small.words(seed)}".encode("latin-1"),
    ".bin": lambda seed: bytes(range(256)) * 4,
    ".pdf": lambda seed: small.pdf("one")[:80],
    ".locked.pdf": lambda seed: small.pdf("secret", encrypted=True),
    ".mp4": lambda seed: small.video(seed % 4)[:600],
    ".docx": lambda seed: b"PK\x03\x04" + bytes(60),
    ".blank.txt": lambda seed: b" \n\t \n",
    ".m4a": lambda seed: small.sound(),
}


@dataclass
class Mixed:
    """What was written: for every file below the root, by its bytes, whether it must be indexed."""

    root: Path
    expected: dict[bytes, bool]


def write_mixed(root: Path, count: int, broken: float = 0.05) -> Mixed:
    """Exactly `count` files, of which about `broken` give nothing; the same bytes for the same arguments."""
    mixed = Mixed(root, {})
    plan = _plan(count, max(1, round(1 / broken)))
    while len(mixed.expected) < count:
        names, content, fine = next(plan)
        for name, data in zip(names, content, strict=True):
            if len(mixed.expected) < count:
                _write(mixed, name, data, fine)
    return mixed


def _plan(count: int, every: int) -> Iterator[tuple[list[bytes], list[bytes], bool]]:
    number = 0
    while True:
        number += 1
        stem = f"{FOLDERS[number % len(FOLDERS)]}/{_odd(number)}".lstrip("/").encode()
        if number % 29 == 0:
            stem += b"-caf\xe9"  # as an old system wrote it: no UTF-8
        if number % every == every // 2:
            kinds = list(BROKEN.items())
            ending, make = kinds[number // every % len(kinds)]
            yield [stem + ending.encode()], [make(number)], False
        elif number % 12 == 5:
            kinds = list(SLOW.items())
            ending, make = kinds[number // 12 % len(kinds)]
            yield [stem + ending.encode()], [make(number)], True
        elif number % 12 == 7:
            yield [stem + b".jpg", stem + b".txt"], [small.image(number, "JPEG"), small.words(number, 5).encode()], True
        elif number % 12 == 8:
            yield [stem + b".png", stem + b".json"], [small.image(number), small.fields(number)], True
        else:
            kinds = list(GOOD.items())
            ending, make = kinds[number % len(kinds)]
            yield [stem + ending.encode()], [make(number)], True


def _odd(number: int) -> str:
    names = {0: "it's {}", 1: 'a "quoted" {}', 2: "50%#{}", 3: "ünï-日本-{}", 4: "two\nlines-{}", 5: "back\\slash-{}", 6: "-{}"}
    return (names[number // 7 % 7] if number % 7 == 0 else "file-{}").format(number)


def _write(mixed: Mixed, name: bytes, data: bytes, fine: bool) -> None:
    path = mixed.root / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    mixed.expected[name] = fine
