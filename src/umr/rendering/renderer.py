"""Items become model inputs and their pooling mask, in one pass over the template.

This is the only place that writes a sequence: the trainer, the evaluator, the command line and the export all use it. The
mask is made from the same pieces as the tokens, so it can neither miss nor hit a token by accident.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from umr.errors import RenderError
from umr.items import Item, Side
from umr.rendering.sequence import Pieces, SequenceWriter, Show
from umr.rendering.template import Template
from umr.rendering.vision import MediaReader, VisionBlock

Pooling = Literal["mean", "last", "token_before_emb", "latent"]
_SHOWN: dict[str, Show] = {"content": "all", "media": "media", "text": "text"}


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


class Renderer:
    """Renders items with one template, tokenizer, processor and set of budgets.

    Args:
        template: the layouts.
        tokenizer: a fast tokenizer of transformers.
        vision: reader of images and videos; None for a text-only backbone.
        max_tokens: longest row. Longer text is cut from its end; instruction, vision and layout never are.
        pooling: which tokens are averaged: all but the skipped (with `"latent"` too), the last, or the one before `<emb>`.
    """

    def __init__(
        self, template: Template, tokenizer: Any, vision: MediaReader | None, max_tokens: int = 2048, pooling: Pooling = "mean"
    ) -> None:
        self.template, self.tokenizer, self.vision = template, tokenizer, vision
        self.max_tokens, self.pooling = max_tokens, pooling
        self._writer = SequenceWriter(tokenizer, vision)
        self._layouts = {
            True: self._writer.prepare(template.with_instruction, template.name),
            False: self._writer.prepare(template.without_instruction, template.name),
        }
        self._emb_id = self._writer.special.get("<emb>")
        shows_emb = all(("special", "<emb>") in layout for layout in self._layouts.values())
        if pooling == "token_before_emb" and not shows_emb:
            raise RenderError("pooling 'token_before_emb' needs the token <emb> in the tokenizer and in both layouts of the template")

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
        blocks = self._writer.read_media(items)
        return [self._render_row(*row) for row in zip(items, instructions, blocks, strict=True)]

    def _render_row(self, item: Item, instruction: str | None, blocks: list[VisionBlock]) -> Rendered:
        sequence = self._writer.start()
        media = iter(blocks)
        skipping = False
        pieces = self._layouts[bool(instruction)]
        for index, (kind, value) in enumerate(pieces):
            if kind in ("skip", "/skip"):
                skipping = kind == "skip"
            elif kind == "special":
                sequence.tokens([self._writer.special[value]], not skipping)
            elif kind == "literal":
                sequence.text(_fitted(pieces, index, bool(item.text), bool(blocks)), not skipping)
            elif kind == "instruction":
                sequence.text(instruction or self.template.default_instruction, not skipping)
            elif kind == "suffix":
                sequence.text(self.template.suffix_of(item.modality, bool(instruction)), not skipping)
            else:
                self._writer.append_item(sequence, item, media, _SHOWN[kind], not skipping)
        ids, pool, types = sequence.arrays(self.max_tokens, f"item {item.id or item.digest[:8]}")
        return Rendered(ids, self._pool(ids, pool, item), types, tuple(sequence.blocks))

    def _pool(self, ids: np.ndarray, unskipped: np.ndarray, item: Item) -> np.ndarray:
        if self.pooling in ("mean", "latent"):
            if not unskipped.any():
                raise RenderError(f"item {item.id or item.digest[:8]}: no token is left for the mean; the whole row is skipped")
            return unskipped
        position = len(ids) - 1 if self.pooling == "last" else int(np.flatnonzero(ids == self._emb_id)[-1]) - 1
        return one_hot(len(ids), position)


def _fitted(pieces: Pieces, index: int, has_text: bool, has_media: bool) -> str:
    """A literal without the newline after media, or the space before text, that the item does not have."""
    value = pieces[index][1]
    if not has_media and index > 0 and pieces[index - 1][0] == "media":
        value = value.removeprefix("\n")
    if not has_text and index + 1 < len(pieces) and pieces[index + 1][0] == "text":
        value = value.removesuffix(" ")
    return value


def one_hot(length: int, position: int) -> np.ndarray:
    """A pooling mask, bool (L,), of one token."""
    mask_L = np.zeros(length, bool)
    mask_L[position] = True
    return mask_L
