"""Bytes of small real files of every kind, and of broken ones."""

from __future__ import annotations

import functools
import io
import json
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image

CLIP_FPS = 4


def picture(seed: int, width: int = 24, height: int = 16) -> PIL.Image.Image:
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 255, (2, 3, 3), dtype=np.uint8))
    return small.resize((width, height), PIL.Image.Resampling.NEAREST)


def image(seed: int, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    if kind == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    picture(seed).save(buffer, format=kind, **options)
    return buffer.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """A PNG that claims to be enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def pdf(*pages: str, sizes: list[tuple[float, float]] | None = None, encrypted: bool = False) -> bytes:
    """A PDF with one line of text on each page; `encrypted` asks for a password that nobody knows."""
    kids = [4 + 2 * number for number in range(len(pages))]
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] /Count {len(kids)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        width, height = sizes[number] if sizes else (200, 100)
        stream = f"BT /F1 18 Tf 10 {height / 2} Td ({text}) Tj ET".encode()
        about = f"/Parent 2 0 R /MediaBox [0 0 {width} {height}] /Contents {kids[number] + 1} 0 R /Resources << /Font << /F1 3 0 R >> >>"
        objects += [f"<< /Type /Page {about} >>".encode(), b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream)]
    out, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    lock = f" /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'11' * 32}> /U <{'22' * 32}> >> /ID [<{'33' * 16}> <{'33' * 16}>]"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R{lock if encrypted else ''} >>"
    return out + b"xref\n0 %d\n0000000000 65535 f \n%strailer %s\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        table,
        trailer.encode(),
        len(out),
    )


@functools.cache
def video(seed: int, seconds: float = 2.0, suffix: str = ".mp4", codec: str = "mpeg4") -> bytes:
    """A film whose grey is the number of the frame times 8, with a corner that depends on the seed."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"film{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=CLIP_FPS)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for number in range(int(seconds * CLIP_FPS)):
                frame = np.full((32, 32, 3), 8 * number % 256, np.uint8)
                frame[:8, :8] = 60 * seed % 256
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode())
        return path.read_bytes()


@functools.cache
def sound() -> bytes:
    """A file that is laid out as a video and holds only a tone."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tone.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16_000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def words(seed: int, count: int = 30) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(["red", "green", "blue", "boat", "tree", "house", "under", "beside", "small", "old"], count))


def fields(seed: int) -> bytes:
    return json.dumps({"caption": words(seed, 4), "year": 1990 + seed % 30, "camera": {"iso": 100}}).encode()
