"""The item of a row, made again from its file: what a reranker reads, and what judgements are exported with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umr.errors import MediaError, UmrError
from umr.items import Item
from umr.search.rows import Row


def reopen(row: Row, media: Path | None) -> Item:
    """The item that was embedded; its id is the row's.

    A page of a PDF is drawn again and the frames of a clip are decoded again, as they were for the embedding; a thumbnail never stands in
    for them, since a reranker that saw less would judge worse without a word. Pictures are opened when they are used.

    Args:
        row: with its text.
        media: the absolute path of the row's media.

    Raises:
        MediaError: the file is gone, lies outside the collection, or cannot be read.
    """
    kinds = row.modality.split(",")
    text = row.text if "text" in kinds else None
    if kinds == ["text"]:
        return Item.of(text=text, id=row.id)
    if media is None or not media.is_file():
        raise MediaError(f"{row.id}: its file {row.media or '(not kept)'} is not there any more; index the folder again")
    try:
        return Item.of(text=text, id=row.id, **_medium(row, media, kinds))
    except UmrError as error:
        raise MediaError(f"{row.id}: {error}") from error


def _medium(row: Row, media: Path, kinds: list[str]) -> dict[str, Any]:
    if row.page is not None:
        from umr.search.readers import pdf

        return {"image": pdf.page(media, row.page)[0]}
    if "video" not in kinds:
        return {"image": media}
    if row.start is None or row.end is None:
        return {"video": media}
    from umr.search.readers import videos

    return {"video": videos.clip(media, row.start, row.end)}
