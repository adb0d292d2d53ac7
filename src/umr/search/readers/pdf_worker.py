"""The process that opens PDFs: `python -m umr.search.readers.pdf_worker FIRST PIXELS < FILE`.

A damaged or hostile file can take a PDF library down, or all memory, or for ever. Here it takes only this process, which lives
within limits, one file long. It writes to its standard output a line of JSON with the number of pages, then for each page a
line of JSON and the bytes of its picture (RGB); `umr.search.readers.pdf` reads them. Nothing of umr that is slow to load is
imported.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
from typing import Any, BinaryIO

MEMORY = 4 * 2**30
"""Bytes of address space."""
SECONDS_PER_PAGE = 60
"""Of processor time."""
LARGEST_SCALE = 4.0
"""Pixels per point at most: a stamp is not blown up to a poster."""
LONGEST_TEXT = 20_000
"""Characters of a page's text layer that are kept."""


def main(first: int, pixels: int, file: BinaryIO, out: BinaryIO) -> None:
    """Write the pages of a PDF from page `first` (from 1) on, each of about `pixels` pixels at most."""
    import pypdfium2

    _limit(resource.RLIMIT_AS, MEMORY)
    _allow_seconds()
    try:
        document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        return _line(out, error=_why(error))
    with contextlib.suppress(pypdfium2.PdfiumError):
        document.init_forms()  # what is filled into a form belongs to the page
    _line(out, pages=len(document))
    for number in range(first, len(document) + 1):
        _allow_seconds()
        try:
            _page(document, number, pixels, out)
        except (pypdfium2.PdfiumError, MemoryError, ValueError, OverflowError, ArithmeticError) as error:
            _line(out, page=number, error=str(error).splitlines()[0].rstrip(".") if str(error) else "takes too much memory")


def _page(document: Any, number: int, pixels: int, out: BinaryIO) -> None:
    page = document[number - 1]
    try:
        width, height = page.get_size()
        if not (math.isfinite(width * height) and width * height > 0):
            raise ValueError(f"has no size ({width} x {height} points)")
        scale = min(math.sqrt(pixels / (width * height)), LARGEST_SCALE)
        if max(width, height) * scale > pixels:  # one pixel wide is the thinnest that there is
            raise ValueError(f"of {width:.0f} x {height:.0f} points is too narrow to be drawn")
        text = _text(page)
        picture = page.render(scale=scale, rev_byteorder=True, draw_annots=True).to_pil().convert("RGB")
    finally:
        page.close()
    _line(out, page=number, width=picture.width, height=picture.height, text=text)
    out.write(picture.tobytes())
    out.flush()


def _text(page: Any) -> str:
    """The text layer; without one, or where it is damaged, `""`: the picture is still good."""
    import pypdfium2

    try:
        layer = page.get_textpage()
        text = layer.get_text_range(0, min(layer.count_chars(), LONGEST_TEXT))
        layer.close()
    except (pypdfium2.PdfiumError, ValueError):
        return ""
    lines = (" ".join(line.split()) for line in text.replace("\ufffe", "").replace("\x02", "").splitlines())
    kept = "\n".join(line for line in lines if line)
    return "".join(character for character in kept if character == "\n" or character.isprintable())


def _why(error: Any) -> str:
    import pypdfium2.raw

    if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
        return "is encrypted: it opens only with a password"
    if error.err_code == pypdfium2.raw.FPDF_ERR_SECURITY:
        return "is protected in a way that cannot be read"
    return "is a damaged PDF"


def _line(out: BinaryIO, **content: Any) -> None:
    out.write(json.dumps(content).encode() + b"\n")
    out.flush()


def _allow_seconds() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + SECONDS_PER_PAGE)


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer, sys.stdout.buffer)
