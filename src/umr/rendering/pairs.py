"""A query with one candidate, or with several, becomes the model inputs of a reranker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from umr.errors import RenderError
from umr.items import Item
from umr.rendering.pair_template import MOST_CANDIDATES, PairTemplate
from umr.rendering.renderer import Rendered, one_hot
from umr.rendering.sequence import KEPT, Pieces, SequenceWriter, Show, TokenSequence
from umr.rendering.vision import MediaReader, VisionBlock

_QUERY_SHOWN: dict[str, Show] = {"query": "all", "query_media": "media", "query_text": "text"}
_CANDIDATE_SHOWN: dict[str, Show] = {"candidate": "all", "candidate_media": "media", "candidate_text": "text"}
_QUERY_GROUP = 0
"""Group of the query's text when a row is cut; candidates have 1, 2, ..."""


@dataclass(frozen=True)
class Pair:
    """A candidate and the query, with its instruction, that it may answer."""

    query: Item
    instruction: str | None
    candidate: Item


class PairRenderer:
    """Renders pairs with one template, tokenizer, processor and set of budgets.

    A row ends where the answer begins; its `pool_L` marks that last token. Rows longer than `max_tokens` lose the ends of
    texts, the longest text first, be it the query's or a candidate's; instructions, media and the layout are never cut.

    Args:
        template: the layouts.
        tokenizer: a fast tokenizer of transformers.
        vision: reader of images and videos; None for a text-only backbone.
        max_tokens: longest row.
    """

    def __init__(self, template: PairTemplate, tokenizer: Any, vision: MediaReader | None, max_tokens: int = 2048) -> None:
        self.template, self.tokenizer, self.vision, self.max_tokens = template, tokenizer, vision, max_tokens
        self._writer = SequenceWriter(tokenizer, vision)
        self._pointwise = self._writer.prepare(template.pointwise, template.name)
        self._listwise = self._writer.prepare(template.listwise, template.name)
        self._choice = self._writer.prepare(template.choice, template.name)
        self._by_modality = {pair: self._writer.prepare(layout, template.name) for pair, layout in template.by_modality.items()}

    def render(self, pairs: Sequence[Pair], done: dict[str, VisionBlock] | None = None) -> list[Rendered]:
        """Render pointwise rows; each depends on its pair and nothing else.

        Args:
            pairs: any mixture of queries and modalities. An image or video that occurs several times is read once.
            done: media read before, by digest; new ones are added.

        Raises:
            RenderError: a medium the backbone cannot see, or a row that does not fit into `max_tokens` even without its text.
            MediaError: an image or video that cannot be opened.
        """
        blocks = self._writer.read_media([item for pair in pairs for item in (pair.query, pair.candidate)], done)
        return [
            self._row(self._layout(pair), pair.query, pair.instruction, [pair.candidate], blocks[2 * index : 2 * index + 2])
            for index, pair in enumerate(pairs)
        ]

    def render_choices(self, query: Item, instruction: str | None, candidates: Sequence[Item]) -> Rendered:
        """Render one listwise row: a query and two to five numbered candidates.

        Raises:
            RenderError: as `render`; also when the template has no listwise layout, or for another number of candidates.
            MediaError: an image or video that cannot be opened.
        """
        if not self._listwise:
            raise RenderError(f"pair template {self.template.name!r} has no listwise layout; score the candidates one by one")
        if not 2 <= len(candidates) <= MOST_CANDIDATES:
            raise RenderError(f"{len(candidates)} candidates to choose from; give 2 to {MOST_CANDIDATES}")
        return self._row(self._listwise, query, instruction, candidates, self._writer.read_media([query, *candidates]))

    @property
    def ends_in_text(self) -> bool:
        """Whether rows of one candidate end in a word, so that an answer would follow it after a space."""
        kind, end = self._pointwise[-1]
        return kind == "literal" and not end[-1:].isspace()

    def token_id(self, answer: str) -> int | None:
        """The token that says `answer` where the layouts end; None when no single one does."""
        layouts = (self._pointwise, self._listwise, *self._by_modality.values())
        found = {self._after(layout[-1][1] if layout[-1][0] == "literal" else "", answer) for layout in layouts if layout}
        return found.pop() if len(found) == 1 else None

    def _after(self, end: str, answer: str) -> int | None:
        before, ids = self._writer.encode(end)[0], self._writer.encode(end + answer)[0]
        # A tokenizer may melt the answer with what stands before it, and would then never have shown the two apart.
        return ids[-1] if len(ids) == len(before) + 1 and ids[:-1] == before else None

    def _layout(self, pair: Pair) -> Pieces:
        return self._by_modality.get(f"{pair.query.modality} -> {pair.candidate.modality}", self._pointwise)

    def _row(
        self, layout: Pieces, query: Item, instruction: str | None, candidates: Sequence[Item], blocks: list[list[VisionBlock]]
    ) -> Rendered:
        sequence = self._writer.start()
        media = [iter(of_item) for of_item in blocks]
        instruction = instruction or self.template.default_instruction
        empty = {"instruction": not instruction, "query_text": not query.text, "query_media": not blocks[0]}
        empty |= {"candidate_text": not candidates[0].text, "candidate_media": not blocks[1]}
        for index, (kind, value) in enumerate(layout):
            if kind == "literal":
                if not (value == " " and _beside(layout, index, empty)):
                    sequence.text(value, False)
            elif kind == "special":
                sequence.tokens([self._writer.special[value]], False)
            elif kind == "instruction":
                sequence.text(instruction, False)
            elif kind in _QUERY_SHOWN:
                self._writer.append_item(sequence, query, media[0], _QUERY_SHOWN[kind], False, _QUERY_GROUP)
            elif kind in _CANDIDATE_SHOWN:
                self._writer.append_item(sequence, candidates[0], media[1], _CANDIDATE_SHOWN[kind], False, _QUERY_GROUP + 1)
            else:
                self._append_choices(sequence, candidates, media[1:])
        names = [item.id or item.digest[:8] for item in (query, *candidates)]
        ids, _, types = sequence.arrays(self.max_tokens, f"query {names[0]} with candidate {', '.join(names[1:])}")
        return Rendered(ids, one_hot(len(ids), len(ids) - 1), types, tuple(sequence.blocks))

    def _append_choices(self, sequence: TokenSequence, candidates: Sequence[Item], media: list[Iterator[VisionBlock]]) -> None:
        for number, candidate in enumerate(candidates, start=1):
            for kind, value in self._choice:
                if kind == "special":
                    sequence.tokens([self._writer.special[value]], False)
                elif kind == "candidate":
                    self._writer.append_item(sequence, candidate, media[number - 1], "all", False, _QUERY_GROUP + number)
                else:
                    sequence.text(str(number) if kind == "number" else value, False, KEPT)


def _beside(layout: Pieces, index: int, empty: dict[str, bool]) -> bool:
    """Whether one of the placeholders on both sides of a piece is empty."""
    if not 0 < index < len(layout) - 1:
        return False
    before, after = layout[index - 1][0], layout[index + 1][0]
    return "literal" not in (before, after) and "special" not in (before, after) and (empty.get(before, False) or empty.get(after, False))
