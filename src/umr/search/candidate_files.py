"""Pictures and videos of rows as files of a benchmark: linked where a row is a whole file, written where it is a page or a clip."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path

from umr import files
from umr.errors import DataError, UmrError
from umr.items import Video
from umr.search.rows import Row

FOLDER = "media"
QUALITY = "12"
"""Constant rate factor of clips: differences from the frames that were embedded cannot be seen."""


class CandidateFiles:
    """The media of one benchmark.

    Args:
        root: its folder.
        media_of: the absolute path of a row's media.
    """

    def __init__(self, root: Path, media_of: Callable[[Row], Path | None]) -> None:
        self._root, self._media_of = root, media_of

    def write(self, rows: Sequence[Row]) -> dict[str, str]:
        """Paths below the benchmark's folder by row id, of the rows that have media.

        Raises:
            DataError: a file is gone or cannot be read. Names row and file.
        """
        found: dict[str, str] = {}
        pages: dict[Path, list[Row]] = defaultdict(list)
        for row in rows:
            if row.modality == "text":
                continue
            path = self._media_of(row)
            if path is None or not path.is_file():
                raise DataError(f"{row.id}: its file {row.media or '(not kept)'} is not there any more; index the folder again")
            if row.page is not None:
                pages[path].append(row)
            elif row.start is not None and row.end is not None and row.modality == "video":
                found[row.id] = self._clip(row, path, row.start, row.end)
            else:
                found[row.id] = self.link(path, _name(row.id) + path.suffix.lower())
        for path, of_file in pages.items():
            found |= self._pages(path, {row.page: row for row in of_file if row.page is not None})
        return found

    def link(self, path: Path, name: str) -> str:
        """A file under another name: the same file where the file system can, else a copy."""
        where = self._root / FOLDER / name
        where.parent.mkdir(parents=True, exist_ok=True)
        temporary = where.with_name(f".{name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            shutil.copyfile(path, temporary)
        temporary.replace(where)
        # Renaming one name of a file over another of the same file does nothing, and leaves both.
        temporary.unlink(missing_ok=True)
        return f"{FOLDER}/{name}"

    def _pages(self, path: Path, wanted: Mapping[int, Row]) -> dict[str, str]:
        """Pictures of pages of one PDF, in one pass over it."""
        from umr.search.readers import pdf
        from umr.search.readers.piece import Piece

        found: dict[str, str] = {}
        try:
            with path.open("rb") as file:
                for piece in pdf.read(path.name, file):
                    if isinstance(piece, Piece) and (row := wanted.get(piece.page or 0)) is not None:
                        buffer = BytesIO()
                        piece.item.parts[0].open().save(buffer, format="png")  # type: ignore[union-attr]
                        found[row.id] = self._save(f"{_name(row.id)}.png", buffer.getvalue())
        except UmrError as error:
            raise DataError(f"{path}: {error}") from error
        if lacking := [row.id for row in wanted.values() if row.id not in found]:
            raise DataError(f"{path}: has no page for {lacking[0]} any more; index the folder again")
        return found

    def _clip(self, row: Row, path: Path, start: float, end: float) -> str:
        from umr.search.readers import videos

        try:
            return self._save(f"{_name(row.id)}.mp4", encoded(videos.clip(path, start, end)))
        except UmrError as error:
            raise DataError(f"{row.id}: {error}") from error

    def _save(self, name: str, data: bytes) -> str:
        files.write_bytes(self._root / FOLDER / name, data)
        return f"{FOLDER}/{name}"


def encoded(video: Video) -> bytes:
    """The frames of a video that is a list of them, as an mp4 file of their rate."""
    import av

    images, data = video.frames().images, BytesIO()
    rate = Fraction(video.fps).limit_denominator(1000)
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        stream.width, stream.height, stream.pix_fmt = images[0].width, images[0].height, "yuv444p"
        stream.time_base = 1 / rate
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return data.getvalue()


def _name(id: str) -> str:
    return hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
