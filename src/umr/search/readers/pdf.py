"""A PDF: a piece for each page, its picture with its text layer. The file is opened by a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from umr.errors import DataError
from umr.items import Image
from umr.search.readers.piece import LeftOut, Piece, item_of, piece_id, thumbnail

if TYPE_CHECKING:
    import PIL.Image

PIXELS = 1_000_000
"""Of a page's picture: A4 at about 104 dots an inch, at which small print can still be read."""
MOST_BYTES = 512 * 2**20
"""Of a PDF."""
MOST_PAGES = 10_000
_COMMAND = ["-m", "umr.search.readers.pdf_worker"]
_STARTS = 4
"""After a page at which the process died, it is started again for the next; this many times in all."""


def read(source: str, file: BinaryIO) -> Iterator[Piece | LeftOut]:
    """The pages of a PDF, whose ids end in `#page=1`, `#page=2` ...

    Args:
        source: its path.
        file: the open file.

    Raises:
        DataError: it is damaged, encrypted, too large, or has no pages.
    """
    size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        raise DataError(f"is {size} bytes, over the limit of {MOST_BYTES} for PDFs")
    first = 1
    for _ in range(_STARTS):
        total = last = 0
        with _worker(file, first) as answers:
            for content, picture in _answers(answers):
                if "pages" in content:
                    total = _checked(content["pages"])
                    continue
                last = content["page"]
                if picture is None:
                    yield LeftOut(source, f"page {last} {content['error']}")
                else:
                    yield _piece(source, last, picture, content["text"])
        if total == 0:
            raise DataError("is a damaged PDF: opening it took too much time or memory")
        broken = max(last, first - 1) + 1  # where the process died, if it did
        if broken <= total:
            yield LeftOut(source, f"page {broken} took too much time or memory")
        first = broken + 1
        if first > total:
            return
    yield LeftOut(source, f"pages {first} to {total} were not tried, after {_STARTS} such pages")


def page(path: Path, number: int) -> tuple[PIL.Image.Image, str]:
    """Picture and text layer of one page (from 1), as `read` gives them.

    Raises:
        DataError: there is no such page, or it cannot be read.
    """
    with path.open("rb") as file, _worker(file, number) as answers:
        for content, picture in _answers(answers):
            if picture is not None:
                return picture, content["text"]
            if "error" in content:
                raise DataError(f"{path}: page {number} {content['error']}")
    raise DataError(f"{path}: page {number} cannot be read")


def _checked(pages: int) -> int:
    if pages == 0:
        raise DataError("is a PDF without pages")
    if pages > MOST_PAGES:
        raise DataError(f"has {pages} pages, over the limit of {MOST_PAGES}")
    return pages


def _piece(source: str, number: int, picture: PIL.Image.Image, text: str) -> Piece:
    item = item_of(Image(picture), text=text)
    return Piece(
        id=piece_id(source, f"page={number}"),
        source=source,
        item=item,
        digest=item.digest,
        text=text,
        media=source,
        page=number,
        thumbnail=thumbnail(picture),
        pixels=picture.width * picture.height,
    )


@contextmanager
def _worker(file: BinaryIO, first: int) -> Iterator[IO[bytes]]:
    """What the process writes about a file from a page on; it is ended when nobody reads on."""
    file.seek(0)
    command = [sys.executable, *_COMMAND, str(first), str(PIXELS)]
    paths = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.kill()


def _answers(stream: IO[bytes]) -> Iterator[tuple[dict[str, Any], PIL.Image.Image | None]]:
    """Lines and pictures until the process has written all, or has died."""
    import PIL.Image

    while (line := stream.readline()).endswith(b"\n"):
        content: dict[str, Any] = json.loads(line)
        if "error" in content and "page" not in content:
            raise DataError(content["error"])
        if "width" not in content:
            yield content, None
            continue
        size = (content["width"], content["height"])
        data = stream.read(size[0] * size[1] * 3)
        if len(data) < size[0] * size[1] * 3:
            return
        yield content, PIL.Image.frombytes("RGB", size, data)
