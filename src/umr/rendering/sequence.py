"""One sequence as it is written: text and special tokens appended piece by piece, with what each token is for.

Shared by the renderers of items and of pairs; nothing else turns text into token ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from umr.errors import RenderError
from umr.items import Image, Item, Text, Video
from umr.rendering.template import split_layout
from umr.rendering.vision import MediaReader, VisionBlock

KEPT = -1
"""Group of tokens that are never cut."""
Show = Literal["all", "media", "text"]
Pieces = list[tuple[str, str]]
"""A layout cut at its placeholders and at special tokens: `(kind, text)`."""


class TokenSequence:
    """Token ids, pooling flags and types as they are appended.

    Text waits until the next special token, so that it is tokenised in one run, exactly as the finished string would be.
    """

    def __init__(self, encode: Any, bos_id: int | None = None) -> None:
        self._encode, self._bos_id = encode, bos_id
        self._text: list[str] = []
        self._flags: list[tuple[bool, int]] = []  # per character: pooled, group of text that may be cut
        self.ids: list[int] = []
        self.pool: list[bool] = []
        self.types: list[int] = []
        self.groups: list[int] = []
        self.blocks: list[VisionBlock] = []

    def text(self, text: str, pooled: bool, group: int = KEPT) -> None:
        """Append text that is tokenised literally. Texts of one `group` >= 0 may be cut when the row is too long."""
        self._text.append(text)
        self._flags.extend([(pooled, group)] * len(text))

    def tokens(self, ids: Sequence[int], pooled: bool, pad_id: int = -1, kind: int = 0) -> None:
        """Append token ids; those equal to `pad_id` stand for patches and have the type `kind`."""
        self.flush()
        self.ids.extend(ids)
        self.pool.extend([pooled] * len(ids))
        self.types.extend(kind if token == pad_id else 0 for token in ids)
        self.groups.extend([KEPT] * len(ids))

    def flush(self) -> None:
        """Tokenise the text that waits."""
        if not self._text:
            return
        ids, offsets = self._encode("".join(self._text), all(token == self._bos_id for token in self.ids))
        flags = self._flags
        for token, (start, end) in zip(ids, offsets, strict=True):
            # A token that crosses a border counts when any of its characters does: nothing of the content is lost.
            # Tokenizers that trim offsets give a token of spaces an empty span, which may lie at the very end.
            start = min(start, len(flags) - 1)
            spanned = flags[start : max(end, start + 1)]
            groups = {group for _, group in spanned}
            self.ids.append(token)
            self.pool.append(any(pooled for pooled, _ in spanned))
            self.groups.append(groups.pop() if len(groups) == 1 else KEPT)
            self.types.append(0)
        self._text, self._flags = [], []

    def arrays(self, max_tokens: int, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The finished row: ids (int64), pooling flags (bool), types (int64), each (L,) with L <= `max_tokens`.

        Text that may be cut loses its end, the longest group first: all groups above some length are cut down to it.

        Raises:
            RenderError: what may not be cut is too long already, or there is no token at all. Says `what`.
        """
        self.flush()
        ids, pool, types = np.array(self.ids, np.int64), np.array(self.pool, bool), np.array(self.types, np.int64)
        excess = len(ids) - max_tokens
        if excess > 0:
            groups_L = np.array(self.groups)
            text = int((groups_L != KEPT).sum())
            if text < excess:
                raise RenderError(
                    f"{what} takes {len(ids) - text} tokens without its text, more than "
                    f"max_tokens={max_tokens}; raise max_tokens, or lower the pixel budget or the number of frames"
                )
            keep = _shortened(groups_L, text - excess)
            ids, types, pool = ids[keep], types[keep], pool[keep]
        if len(ids) == 0:
            raise RenderError(f"{what} renders to no token at all; give it text or an image")
        return ids, pool, types


def _shortened(groups_L: np.ndarray, room: int) -> np.ndarray:
    """Which tokens stay, bool (L,), when only `room` tokens of cuttable text do: every group keeps its first tokens."""
    sizes = {int(group): int((groups_L == group).sum()) for group in np.unique(groups_L) if group != KEPT}
    keep = groups_L == KEPT
    # Shortest first: what a short text does not need is shared by the longer ones. Of two equal ones, the later is cut more.
    for done, group in enumerate(sorted(sizes, key=lambda name: (sizes[name], -name))):
        share = min(sizes[group], room // (len(sizes) - done))
        keep[np.flatnonzero(groups_L == group)[:share]] = True
        room -= share
    return keep


def _backends(backend: Any) -> tuple[Any, Any]:
    """Copies of a tokenizer for the text that a sequence begins with, and for text after that.

    They differ for SentencePiece-like tokenizers that put a space before the first word of a sequence and before no other.
    """
    first, splitter = _literal(backend), backend.pre_tokenizer
    if getattr(splitter, "prepend_scheme", None) != "first":
        return first, first
    later = _literal(backend)
    later.pre_tokenizer = type(splitter)(replacement=splitter.replacement, prepend_scheme="never", split=splitter.split)
    return first, later


def _literal(backend: Any) -> Any:
    """A copy, because the switch is a property of the tokenizer: special tokens written in a user's text stay text."""
    copy = type(backend).from_str(backend.to_str())
    copy.encode_special_tokens = True
    copy.no_padding()
    copy.no_truncation()
    return copy


class SequenceWriter:
    """Knows a tokenizer's special tokens and a backbone's way of showing media, and writes sequences with them.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vision: reader of images and videos; None for a text-only backbone.
    """

    def __init__(self, tokenizer: Any, vision: MediaReader | None) -> None:
        self.vision = vision
        self._ends = {"bos": tokenizer.bos_token, "eos": tokenizer.eos_token}
        self.special: dict[str, int] = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
        # Many chat formats are made of tokens that are special without a role of their own.
        self.special |= {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._bos_id = tokenizer.bos_token_id
        self._first, self._later = _backends(tokenizer.backend_tokenizer)

    def prepare(self, layout: str, name: str) -> Pieces:
        """Cut a layout at its placeholders, and its literals at special tokens (kind `"special"`).

        `{bos}` and `{eos}` become the tokenizer's own tokens, or nothing where it has none.

        Raises:
            RenderError: the layout of template `name` uses a special token that the tokenizer does not have.
        """
        names = sorted(self.special, key=len, reverse=True)
        pattern = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None
        pieces: Pieces = []
        for kind, value in split_layout(layout):
            if kind in self._ends:
                if token := self._ends[kind]:
                    pieces.append(("special", token))
            elif kind != "literal" or pattern is None:
                pieces.append((kind, value))
            else:
                pieces.extend(("special" if part in self.special else "literal", part) for part in pattern.split(value) if part)
        for _, value in pieces:
            if missing := re.search(r"<\|[a-z_]+\|>|<emb>|<instruction_(start|end)>", value if value not in self.special else ""):
                raise RenderError(
                    f"template {name!r} uses {missing.group()}, which this tokenizer does not have as a special token; "
                    "use template 'plain' or add the token"
                )
        return pieces

    def encode(self, text: str, first: bool = True) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of literal text and the characters each of them spans; `first` where a sequence begins with it."""
        encoding = (self._first if first else self._later).encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def start(self) -> TokenSequence:
        """An empty sequence."""
        return TokenSequence(self.encode, self._bos_id)

    def append_item(
        self, sequence: TokenSequence, item: Item, blocks: Iterator[VisionBlock], show: Show, pooled: bool, group: int = 0
    ) -> None:
        """Append an item's parts in their order: all of them, or its media, taken from `blocks`, or its texts alone."""
        for part in item.parts:
            if isinstance(part, Text):
                if show != "media":
                    sequence.text(part.text, pooled, group)
            elif show != "text":
                block = next(blocks)
                sequence.blocks.append(block)
                for piece in block.pieces:
                    if isinstance(piece, str):
                        sequence.text(piece, pooled)
                    else:
                        sequence.tokens(piece, pooled, self._pad_id(block.kind), block.kind)

    def _pad_id(self, kind: int) -> int:
        assert self.vision is not None
        return self.vision.image_id if kind == 1 else self.vision.video_id

    def read_media(self, items: Sequence[Item], done: dict[str, VisionBlock] | None = None) -> list[list[VisionBlock]]:
        """Decode and process the images and videos of items, equal ones once.

        Args:
            items: any mixture of modalities.
            done: blocks by digest that are there already; new ones are added to it.

        Returns:
            For each item its blocks, in the order of its parts.
        """
        media = [part for item in items for part in item.parts if isinstance(part, Image | Video)]
        if media and self.vision is None:
            raise RenderError("this backbone reads text only, and an item holds an image or a video")
        done = {} if done is None else done
        wanted = {part.digest: part for part in media if part.digest not in done}
        if self.vision is not None:
            images = {digest: part for digest, part in wanted.items() if isinstance(part, Image)}
            blocks = self.vision.images([part.open() for part in images.values()])
            done.update((digest, replace(block, digest=digest)) for digest, block in zip(images, blocks, strict=True))
            for digest, part in wanted.items():
                if isinstance(part, Video):
                    done[digest] = replace(self.vision.video(part.frames()), digest=digest)
        for part in media:
            done[part.digest] = done.pop(part.digest)  # last used, last in order: a caller may drop the first ones
        return [[done[part.digest] for part in item.parts if isinstance(part, Image | Video)] for item in items]
