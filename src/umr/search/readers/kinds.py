"""What a file is, by its first bytes; its name is not asked."""

from __future__ import annotations

from typing import Literal, TypeAlias

from umr import media

Kind: TypeAlias = Literal["image", "pdf", "video", "text"]

HEAD = 4096
"""Bytes from the beginning of a file that decide."""
CAN_BE_READ = "images, PDFs, videos and texts can be"

_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_VIDEOS = (b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"0&\xb2u\x8ef\xcf\x11")
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_OTHERS = {
    b"PK\x03\x04": "a zip archive or an Office document",
    b"PK\x05\x06": "a zip archive",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"Rar!": "a rar archive",
    b"\x7fELF": "a program",
    b"SQLite format 3\0": "a database",
    b"PAR1": "a Parquet file",
    b"ID3": "an audio file",
    b"fLaC": "an audio file",
    b"8BPS": "a Photoshop file",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def kind_of(head: bytes) -> Kind | str:
    """The kind of a file, or a line that says why it is none that can be read.

    Args:
        head: its first `HEAD` bytes, or all of it where it is shorter.
    """
    if not head:
        return "is empty (zero bytes)"
    if head.startswith(_IMAGES) or _bmp(head) or media.looks_like_heif(head) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP"):
        return "image"
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "is an AVIF image; of images, AVIF is not read"
    if head.startswith(_VIDEOS) or head[4:8] in _MP4_BOXES or (head[:4], head[8:12]) == (b"RIFF", b"AVI ") or _transport_stream(head):
        return "video"
    for start, name in _OTHERS.items():
        if head.startswith(start):
            return f"is {name}; {CAN_BE_READ}"
    if head.startswith(_UTF16) or b"\0" not in head:
        return "text"
    if not head.strip(b"\0"):
        return f"begins with {len(head)} zero bytes"
    return f"is binary data of an unknown kind; {CAN_BE_READ}"


def _bmp(head: bytes) -> bool:
    return head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"


def _transport_stream(head: bytes) -> bool:
    return len(head) > 376 and head[0] == head[188] == head[376] == 0x47
