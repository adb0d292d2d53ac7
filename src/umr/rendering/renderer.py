"""Items become model inputs and their pooling mask, in one pass over the template.

This is the only place that writes a sequence: the trainer, the evaluator, the command line and the export all use it. The
mask is made from the same pieces as the tokens, so it can neither miss nor hit a token by accident.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from umr.errors import RenderError
from umr.items import Image, Item, Side, Text, Video
from umr.rendering.template import Template, split_layout
from umr.rendering.vision import VisionBlock, VisionReader

Pooling = Literal["mean", "last", "token_before_emb"]


@dataclass(frozen=True)
class Rendered:
    """One row, unpadded.

    Attributes:
        token_ids_L: int64.
        pool_L: bool, the tokens whose hidden states are averaged.
        types_L: int64; 0 text, 1 image, 2 video (the pads only).
        blocks: images and videos in the order of their pads.
    """

    token_ids_L: np.ndarray
    pool_L: np.ndarray
    types_L: np.ndarray
    blocks: tuple[VisionBlock, ...]

    @property
    def patches(self) -> int:
        """Patches through the vision tower."""
        return sum(block.patches_PC.shape[0] for block in self.blocks)


class _Sequence:
    """Token ids, pooling flags and types as they are appended.

    Text waits until the next special token, so that it is tokenised in one run, exactly as the finished string would be.
    """

    def __init__(self, encode: Any) -> None:
        self._encode = encode
        self._text: list[str] = []
        self._flags: list[tuple[bool, bool]] = []  # per character: pooled, may be cut
        self.ids: list[int] = []
        self.pool: list[bool] = []
        self.types: list[int] = []
        self.cuttable: list[bool] = []

    def text(self, text: str, pooled: bool, cuttable: bool) -> None:
        self._text.append(text)
        self._flags.extend([(pooled, cuttable)] * len(text))

    def tokens(self, ids: Sequence[int], pooled: bool, pad_id: int = -1, kind: int = 0) -> None:
        self.flush()
        self.ids.extend(ids)
        self.pool.extend([pooled] * len(ids))
        self.types.extend(kind if token == pad_id else 0 for token in ids)
        self.cuttable.extend([False] * len(ids))

    def flush(self) -> None:
        if not self._text:
            return
        ids, offsets = self._encode("".join(self._text))
        flags = self._flags
        for token, (start, end) in zip(ids, offsets, strict=True):
            # A token that crosses a border counts when any of its characters does: nothing of the content is lost.
            # Tokenizers that trim offsets give a token of spaces an empty span, which may lie at the very end.
            start = min(start, len(flags) - 1)
            spanned = flags[start : max(end, start + 1)]
            self.ids.append(token)
            self.pool.append(any(pooled for pooled, _ in spanned))
            self.cuttable.append(all(cuttable for _, cuttable in spanned))
            self.types.append(0)
        self._text, self._flags = [], []


class Renderer:
    """Renders items with one template, tokenizer, processor and set of budgets.

    Args:
        template: the layouts.
        tokenizer: a fast tokenizer of transformers.
        vision: reader of images and videos; None for a text-only backbone.
        max_tokens: longest row. Longer text is cut from its end; instruction, vision and layout never are.
        pooling: which tokens are averaged: all but the skipped, the last, or the one before `<emb>`.
    """

    def __init__(
        self, template: Template, tokenizer: Any, vision: VisionReader | None, max_tokens: int = 2048, pooling: Pooling = "mean"
    ) -> None:
        self.template, self.tokenizer, self.vision = template, tokenizer, vision
        self.max_tokens, self.pooling = max_tokens, pooling
        self._special = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
        self._layouts = {
            True: self._prepare(template.with_instruction),
            False: self._prepare(template.without_instruction),
        }
        self._emb_id = self._special.get("<emb>")
        shows_emb = all(("special", "<emb>") in layout for layout in self._layouts.values())
        if pooling == "token_before_emb" and not shows_emb:
            raise RenderError("pooling 'token_before_emb' needs the token <emb> in the tokenizer and in both layouts of the template")
        # A copy, because the switch is a property of the tokenizer: special tokens written in a user's text stay text.
        self._backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.encode_special_tokens = True
        self._backend.no_padding()
        self._backend.no_truncation()

    def _prepare(self, layout: str) -> list[tuple[str, str]]:
        """Cut the literals of a layout at special tokens."""
        names = sorted(self._special, key=len, reverse=True)
        pattern = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None
        pieces: list[tuple[str, str]] = []
        for kind, value in split_layout(layout):
            if kind != "literal" or pattern is None:
                pieces.append((kind, value))
                continue
            pieces.extend(("special" if part in self._special else "literal", part) for part in pattern.split(value) if part)
        for _, value in pieces:
            if missing := re.search(r"<\|[a-z_]+\|>|<emb>|<instruction_(start|end)>", value if value not in self._special else ""):
                raise RenderError(
                    f"template {self.template.name!r} uses {missing.group()}, which this tokenizer does not have as a special token; "
                    "use template 'plain' or add the token"
                )
        return pieces

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def render(
        self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None
    ) -> list[Rendered]:
        """Render rows; each depends on its item, its instruction and nothing else.

        Args:
            items: any mixture of modalities.
            side: `"query"` rows may carry an instruction, `"candidate"` rows may not.
            instruction: one for all rows, or one a row; None or `""` for none.

        Raises:
            RenderError: an instruction on the candidate side, a medium the backbone cannot see, or a row that does not fit
                into `max_tokens` even without its text.
            MediaError: an image or video that cannot be opened.
        """
        instructions = [instruction] * len(items) if instruction is None or isinstance(instruction, str) else list(instruction)
        if len(instructions) != len(items):
            raise RenderError(f"{len(instructions)} instructions for {len(items)} items; give one, or one for each")
        if side == "candidate" and any(instructions):
            raise RenderError("instructions belong to the query side; a candidate is embedded without one")
        blocks = self._read_media(items)
        return [self._render_row(*row) for row in zip(items, instructions, blocks, strict=True)]

    def _read_media(self, items: Sequence[Item]) -> list[list[VisionBlock]]:
        images = [part for item in items for part in item.parts if isinstance(part, Image)]
        videos = any(isinstance(part, Video) for item in items for part in item.parts)
        if (images or videos) and self.vision is None:
            raise RenderError("this backbone reads text only, and an item holds an image or a video")
        if self.vision is None:
            return [[] for _ in items]
        # Equal images of one call are decoded and processed once.
        distinct = {part.digest: part for part in images}
        done = dict(zip(distinct, self.vision.images([part.open() for part in distinct.values()]), strict=True))
        return [
            [
                done[part.digest] if isinstance(part, Image) else self.vision.video(part.frames())
                for part in item.parts
                if isinstance(part, Image | Video)
            ]
            for item in items
        ]

    def _render_row(self, item: Item, instruction: str | None, blocks: list[VisionBlock]) -> Rendered:
        sequence = _Sequence(self._encode)
        media = iter(blocks)
        skipping = False
        pieces = self._layouts[bool(instruction)]
        for index, (kind, value) in enumerate(pieces):
            if kind in ("skip", "/skip"):
                skipping = kind == "skip"
            elif kind == "special":
                sequence.tokens([self._special[value]], not skipping)
            elif kind == "literal":
                before_text = index + 1 < len(pieces) and pieces[index + 1][0] == "text"
                sequence.text(value[:-1] if before_text and not item.text and value.endswith(" ") else value, not skipping, False)
            elif kind == "instruction":
                sequence.text(instruction or self.template.default_instruction, not skipping, False)
            elif kind == "suffix":
                sequence.text(self.template.suffix.get(item.modality, ""), not skipping, False)
            else:
                self._append_parts(sequence, item, kind, media, not skipping)
        sequence.flush()
        return self._finish(sequence, item, tuple(blocks))

    def _append_parts(self, sequence: _Sequence, item: Item, kind: str, media: Any, pooled: bool) -> None:
        for part in item.parts:
            if isinstance(part, Text):
                if kind != "media":
                    sequence.text(part.text, pooled, True)
            elif kind != "text":
                block = next(media)
                for piece in block.pieces:
                    if isinstance(piece, str):
                        sequence.text(piece, pooled, False)
                    else:
                        sequence.tokens(piece, pooled, self._pad_id(block.kind), block.kind)

    def _pad_id(self, kind: int) -> int:
        assert self.vision is not None
        return self.vision.image_id if kind == 1 else self.vision.video_id

    def _finish(self, sequence: _Sequence, item: Item, blocks: tuple[VisionBlock, ...]) -> Rendered:
        ids, types, pool = np.array(sequence.ids, np.int64), np.array(sequence.types, np.int64), np.array(sequence.pool, bool)
        excess = len(ids) - self.max_tokens
        if excess > 0:
            cuttable = np.flatnonzero(sequence.cuttable)
            if len(cuttable) < excess:
                raise RenderError(
                    f"item {item.id or item.digest[:8]} takes {len(ids) - len(cuttable)} tokens without its text, more than "
                    f"max_tokens={self.max_tokens}; raise max_tokens, or lower the pixel budget or the number of frames"
                )
            keep = np.ones(len(ids), bool)
            keep[cuttable[-excess:]] = False
            ids, types, pool = ids[keep], types[keep], pool[keep]
        if len(ids) == 0:
            raise RenderError(f"item {item.id or item.digest[:8]} renders to no token at all; give it text or an image")
        return Rendered(ids, self._pool(ids, pool, item), types, blocks)

    def _pool(self, ids: np.ndarray, unskipped: np.ndarray, item: Item) -> np.ndarray:
        if self.pooling == "mean":
            if not unskipped.any():
                raise RenderError(f"item {item.id or item.digest[:8]}: no token is left for the mean; the whole row is skipped")
            return unskipped
        position = len(ids) - 1 if self.pooling == "last" else int(np.flatnonzero(ids == self._emb_id)[-1]) - 1
        one_hot = np.zeros(len(ids), bool)
        one_hot[position] = True
        return one_hot
