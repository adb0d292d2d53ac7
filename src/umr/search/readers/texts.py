"""A text or Markdown file: chunks of whole paragraphs, each with the headings it stands under."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from umr.errors import DataError
from umr.items import Item, Text
from umr.search.readers.piece import Piece, piece_id

CHUNK = 1200
"""Characters of a chunk at most, without its headings: about 200 words of English. Characters, since not every script
puts spaces between words."""
MOST_BYTES = 16 * 2**20
"""Of a text file."""
LONGEST_HEADING = 150
"""Characters; a longer line that begins with # is a paragraph."""
MARKDOWN = (".md", ".markdown", ".mdown", ".mkd", ".rmd", ".qmd", ".mdx")

_BLANK = re.compile(r"\n[ \t\r]*\n")
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t#]*$")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s|[。！？]|\n")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


@dataclass(frozen=True)
class Chunk:
    """A part of a text: `text` is what is embedded, with the headings above it; `start` and `end` say where its own part is."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class _Block:
    """A paragraph, or a heading, whose `level` is 1 to 6."""

    start: int
    end: int
    level: int = 0
    title: str = ""


def decode(data: bytes) -> str:
    """The characters of a text file: UTF-8, or UTF-16 with its mark; other encodings are not guessed.

    Raises:
        DataError: it is in another encoding, or no text.
    """
    mark, encoding = next(((mark, name) for mark, name in _BOMS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        raise DataError(f"is neither UTF-8 nor UTF-16 text (byte 0x{data[at]:02x} at {at}); save it as UTF-8") from error
    if len(_CONTROLS.findall(text)) > len(text) // 100:
        raise DataError("is binary data, not text (it is full of control characters)")
    return text


def read(source: str, data: bytes, chunk: int = CHUNK) -> Iterator[Piece]:
    """The chunks of a text file, whose ids end in `#chunk=1`, `#chunk=2` ...

    Args:
        source: its path; Markdown, by the ending of its name, is cut at headings by preference.
        data: its bytes.
        chunk: characters of a chunk at most.

    Raises:
        DataError: it is no text, or holds nothing but blanks.
    """
    text = decode(data)
    number = 0
    for number, part in enumerate(chunks(text, source.lower().endswith(MARKDOWN), chunk), 1):
        item = Item((Text(part.text),))
        yield Piece(
            id=piece_id(source, f"chunk={number}"),
            source=source,
            item=item,
            digest=item.digest,
            text=part.text,
            start=float(part.start),
            end=float(part.end),
        )
    if not number:
        raise DataError("holds no text, only blanks")


def chunks(text: str, markdown: bool = False, size: int = CHUNK) -> Iterator[Chunk]:
    """Cut a text into parts of about `size` characters, between paragraphs where possible.

    No character that is not blank is lost, and none is in two parts. A heading begins a part, unless the part before it would
    be under half full, and stays with the paragraph under it, for which a part may be half as long again.
    """
    trail: list[_Block] = []
    above: list[_Block] = []
    start = end = 0
    for group in _with_headings(_blocks(text, markdown, size), size):
        first, last = group[0].start, group[-1].end
        if end and (last - start > size or (group[0].level and end - start >= size // 2)):
            yield _chunk(text, start, end, above)
            end = 0
        for number, block in enumerate(group):
            if block.level:
                trail = [heading for heading in trail if heading.level < block.level]
            if not end and not number:
                start, above = first, trail
            if block.level:
                trail = [*trail, block]
        end = last
    if end:
        yield _chunk(text, start, end, above)


def _chunk(text: str, start: int, end: int, above: list[_Block]) -> Chunk:
    head = " › ".join(heading.title for heading in above)
    return Chunk(f"{head}\n\n{text[start:end]}" if head else text[start:end], start, end)


def _with_headings(blocks: Iterator[_Block], size: int) -> Iterator[list[_Block]]:
    """Paragraphs, each with the headings right before it."""
    headings: list[_Block] = []
    for block in blocks:
        if headings and block.end - headings[0].start > size + size // 2:
            yield headings
            headings = []
        headings = [*headings, block]
        if not block.level:
            yield headings
            headings = []
    if headings:
        yield headings


def _blocks(text: str, markdown: bool, size: int) -> Iterator[_Block]:
    in_code = False
    for start, end in _paragraphs(text):
        for block in _headings(text, start, end, in_code) if markdown else [_Block(start, end)]:
            if block.level or block.end - block.start <= size:
                yield block
            else:
                yield from (_Block(*span) for span in _pieces(text, block.start, block.end, size))
        if markdown:
            in_code ^= sum(bool(_FENCE.match(line)) for line in text[start:end].splitlines()) % 2 == 1


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for gap in [*_BLANK.finditer(text), None]:
        span = _stripped(text, start, gap.start() if gap else len(text))
        if span:
            yield span
        start = gap.end() if gap else start


def _stripped(text: str, start: int, end: int) -> tuple[int, int] | None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if end > start else None


def _headings(text: str, start: int, end: int, in_code: bool) -> Iterator[_Block]:
    """A paragraph of Markdown, its lines that are headings apart; in code a # begins a comment."""
    body = position = start
    for line in text[start:end].splitlines(keepends=True):
        stop = position + len(line.rstrip())
        in_code ^= bool(_FENCE.match(line))
        found = None if in_code else _HEADING.match(line.rstrip())
        if found and len(found[2]) <= LONGEST_HEADING:
            if before := _stripped(text, body, position):
                yield _Block(*before)
            yield _Block(position, stop, len(found[1]), found[2])
            body = stop
        position += len(line)
    if rest := _stripped(text, body, end):
        yield _Block(*rest)


def _pieces(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """A paragraph that is too long, cut after a sentence, else at a blank, else anywhere."""
    while end - start > size:
        window = text[start : start + size]
        ends = [found.end() for found in _SENTENCE_END.finditer(window) if found.end() > size // 2]
        cut = start + (ends[-1] if ends else window.rfind(" ", size // 2) + 1 or size)
        if span := _stripped(text, start, cut):
            yield span
        start = cut
    if span := _stripped(text, start, end):
        yield span
