"""What a collection stores: one `Row` per thing that can be found, and one `SourceFile` per file that was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Scalar: TypeAlias = str | int | float | bool
"""What a metadata field may hold; a list of texts is allowed too."""

Status: TypeAlias = Literal["indexed", "rejected"]


@dataclass(frozen=True)
class Row:
    """One thing that can be found: an image, a chunk of text, a page, a clip, or an image with its caption.

    Attributes:
        id: `did`, derived from `source` and the place in it, so that indexing a file again gives the same ids.
        source: path of the file below the collection's root, with forward slashes; for a manifest's row, its id; `""` for an item
            that was added by itself.
        modality: `Item.modality` of what was embedded: `image`, `text`, `image,text` or `video`.
        digest: `Item.digest` of what was embedded.
        vector_D: unit vector, float16; None where rows are read without their vectors.
        text: what full-text search reads and a hit shows: caption, chunk, or a page's text layer; `""` without.
        media: path of the picture, PDF or video below the root, or, with a leading slash, below the collection's own folder; `""`
            without.
        page: from 1; None where there are no pages.
        start, end: seconds into a video; characters into a text file.
        thumbnail: a small WebP; `b""` without.
        metadata: the user's own fields.
    """

    id: str
    source: str
    modality: str
    digest: str
    vector_D: npt.NDArray[np.float16] | None
    text: str = ""
    media: str = ""
    page: int | None = None
    start: float | None = None
    end: float | None = None
    thumbnail: bytes = b""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceFile:
    r"""One file that was looked at, and what became of it: every file ends as indexed or as rejected with its reason.

    Attributes:
        path: below the root, with forward slashes, as `umr.search.walk.shown` writes it: bytes that are no UTF-8 appear as `\xNN`.
        digest: hash of the file's bytes, with whatever beside it decided how it was read (a caption).
        size: bytes.
        modified_ns: modification time; equal size and time spare reading the file again.
        status: `indexed` or `rejected`.
        rows: how many rows it gave.
        reason: one line; when indexed, what was left out of it, `""` when nothing was.
    """

    path: str
    digest: str
    size: int
    modified_ns: int
    status: Status
    rows: int
    reason: str = ""
