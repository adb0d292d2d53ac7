"""A group of files that is committed at once: their pieces become rows, in batches as the model likes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from umr.errors import MediaError, RenderError
from umr.items import Item, Text
from umr.protocols import Encoder
from umr.search.known import KnownVectors, Vector
from umr.search.readers.piece import Done, Event, LeftOut, Piece, piece_id
from umr.search.rows import Row, SourceFile
from umr.search.units import Unit

BATCH_PIECES = 512
BATCH_PIXELS = 256_000_000
"""What one call of the model is given at most: enough for it to sort by cost, few enough to hold, at three bytes a pixel."""
UNIT = 0.01
"""How far from 1 the length of a vector may be."""


class Block:
    """Takes the events of some units; gives rows and records.

    Which pieces are embedded together depends on the block's files alone, so that a block that is done again after an
    interruption gives the same bytes.

    Args:
        encoder: the model.
        known: vectors that need no embedding.
    """

    def __init__(self, encoder: Encoder, known: KnownVectors) -> None:
        self.embedded = self.reused = 0
        self._encoder, self._known = encoder, known
        self._waiting: list[Piece] = []
        self._pixels = 0
        self._rows: dict[str, list[Row]] = defaultdict(list)
        self._notes: dict[str, list[str]] = defaultdict(list)  # what was left out of a file
        self._poorer: dict[str, list[str]] = defaultdict(list)  # what is found by its text only
        self._done: list[tuple[Unit, Done]] = []
        self._vectors: dict[str, Vector | str] = {}

    def take(self, unit: Unit, event: Event) -> None:
        """Take the next event of a unit."""
        if isinstance(event, Piece):
            if self._waiting and self._pixels + event.pixels > BATCH_PIXELS:
                self._embed()
            self._waiting.append(event)
            self._pixels += event.pixels
            if len(self._waiting) >= BATCH_PIECES:
                self._embed()
        elif isinstance(event, LeftOut):
            self._notes[event.source].append(event.reason)
        else:
            self._done.append((unit, event))

    def finish(self) -> tuple[list[Row], list[SourceFile]]:
        """All rows and records of the block, in the order of its files."""
        self._embed()
        rejected: set[str] = set()
        records: dict[str, SourceFile] = {}
        for unit, done in sorted(self._done, key=lambda pair: bool(pair[1].serves)):  # a caption's end depends on its image's
            record = self._record(unit, done, rejected)
            records[done.source] = record
            if record.status == "rejected":
                rejected.add(done.source)
                self._rows.pop(done.source, None)
        files = [records[done.source] for _, done in self._done]
        return [row for file in files for row in self._rows.get(file.path, [])], files

    def _record(self, unit: Unit, done: Done, rejected: set[str]) -> SourceFile:
        file = next(file for file in unit.files if file.path == done.source)
        rows, notes = self._rows.get(done.source, []), self._notes[done.source]
        reason = done.reason
        if not reason and done.serves and rejected.issuperset(done.serves):
            reason = f"is the caption of {done.serves[0]}, which was rejected"
        elif not reason and not rows and not done.serves:
            reason = notes[0] if notes else "holds nothing to index"
        if reason:
            return SourceFile(file.path, unit.record_digest(done.content), file.size, file.modified_ns, "rejected", 0, reason)
        told = self._told(done.source, len(rows))
        return SourceFile(file.path, unit.record_digest(done.content), file.size, file.modified_ns, "indexed", len(rows), told)

    def _told(self, source: str, rows: int) -> str:
        """What is to be said of an indexed file."""
        notes, poorer = self._notes[source], self._poorer[source]
        said = [f"{len(notes)} of {rows + len(notes)} parts left out: {notes[0]}"] if notes else []
        said += [f"{len(poorer)} of {rows} parts found by text only: {poorer[0]}"] if poorer else []
        return "; ".join(said)

    def _embed(self) -> None:
        pieces, self._waiting, self._pixels = self._waiting, [], 0
        self._know(pieces)
        worded = {piece.id: worded for piece in pieces if self._refused(piece) and (worded := _by_text(piece)) is not None}
        self._know(list(worded.values()))
        for piece in pieces:
            stand_in = worded.get(piece.id)
            if not self._refused(piece):
                self._keep(piece)
            elif stand_in is not None and not self._refused(stand_in):
                self._poorer[piece.source].append(self._said(piece))
                self._keep(stand_in)
            else:
                self._notes[piece.source].append(self._said(piece))

    def _know(self, pieces: Sequence[Piece]) -> None:
        """Have a vector, or the model's refusal, for each piece."""
        new = {piece.digest: piece for piece in pieces if piece.digest not in self._vectors}
        self._vectors.update(self._known.find(list(new)))
        unknown = [piece for digest, piece in new.items() if digest not in self._vectors]
        for piece, vector in zip(unknown, _encode(self._encoder, unknown), strict=True):
            self._vectors[piece.digest] = vector
        embedded = sum(not self._refused(piece) for piece in unknown)
        self.embedded += embedded
        self.reused += sum(not self._refused(piece) for piece in pieces) - embedded

    def _refused(self, piece: Piece) -> bool:
        return isinstance(self._vectors[piece.digest], str)

    def _said(self, piece: Piece) -> str:
        """The model's refusal, after the place in the file."""
        place = "" if piece.id == piece.source else piece.id.removeprefix(piece_id(piece.source)).removeprefix("#")
        said = str(self._vectors[piece.digest])
        return f"{place}: {said}" if place else said

    def _keep(self, piece: Piece) -> None:
        vector_D = self._vectors[piece.digest]
        assert not isinstance(vector_D, str)
        self._rows[piece.source].append(_row(piece, vector_D))


def _by_text(piece: Piece) -> Piece | None:
    """A piece by its text alone, for a model that does not take the rest: a text model finds pages by their text layer."""
    if not piece.text or piece.item.modality == "text":
        return None
    item = Item((Text(piece.text),))
    return replace(piece, item=item, digest=item.digest, pixels=0)


def _row(piece: Piece, vector_D: Vector) -> Row:
    return Row(
        id=piece.id,
        source=piece.source,
        modality=piece.item.modality,
        digest=piece.digest,
        vector_D=vector_D,
        text=piece.text,
        media=piece.media,
        page=piece.page,
        start=piece.start,
        end=piece.end,
        thumbnail=piece.thumbnail,
        metadata=piece.metadata,
    )


def _encode(encoder: Encoder, pieces: Sequence[Piece]) -> list[Vector | str]:
    """A vector for each piece, or why the model refuses it. Where it refuses a batch, halves of it find out which piece it was."""
    if not pieces:
        return []
    try:
        vectors_ND = encoder.encode([replace(piece.item, id=piece.id) for piece in pieces], "candidate")
    except (MediaError, RenderError) as error:
        if len(pieces) > 1:
            half = len(pieces) // 2
            return [*_encode(encoder, pieces[:half]), *_encode(encoder, pieces[half:])]
        return [_refusal(error, pieces[0])]
    return [
        vector_D.astype(np.float16) if abs(length - 1) < UNIT else f"the model's vector has length {length:.3g} instead of 1"
        for vector_D, length in zip(vectors_ND, np.linalg.norm(vectors_ND, axis=1), strict=True)
    ]


def _refusal(error: Exception, piece: Piece) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    for start in (f"item {piece.id}: ", f"item {piece.id} "):
        said = said.removeprefix(start)
    return said
