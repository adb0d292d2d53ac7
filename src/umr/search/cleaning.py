"""Texts in the form that models trained on M-BEIR have read: a capital first, a full stop last (`umr.data.mbeir_records`).

M-BEIR's reader brings the texts of queries and candidates into this form for training and evaluation. A collection with `texts="mbeir"`
does the same, for its rows and for what is asked, just before the model reads them; what is stored, shown and searched by words stays as
it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from umr.data.mbeir_records import normalise_after_instruction, normalise_text
from umr.errors import ModelError
from umr.items import Item, Part, QueryText, Side, Text
from umr.protocols import Encoder, Vectors, query_text_of

if TYPE_CHECKING:
    from umr.mining.fill import PairScorer
    from umr.rendering.pairs import Pair


def cleaned(item: Item, query_text: QueryText = "separate") -> Item:
    """An item with its texts cleaned; one of nothing but blanks and quotes stays as it is.

    Args:
        item: a candidate, or a query.
        query_text: `"joined"` for a query that has an instruction, where the model wants it (`ModelSettings.query_text`).
    """
    clean = normalise_text if query_text == "separate" else normalise_after_instruction

    def part(one: Part) -> Part:
        return Text(clean(one.text) or one.text) if isinstance(one, Text) else one

    return replace(item, parts=tuple(map(part, item.parts)))


class CleaningEncoder:
    """An encoder that is given cleaned texts.

    Args:
        encoder: the model. The fingerprint is its own: which texts it is given is a matter of the collection.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._encoder.dimension

    @property
    def fingerprint(self) -> str:
        """Of the model."""
        return self._encoder.fingerprint

    def encode(self, items: Sequence[Item], side: Side = "candidate", instruction: None | str | Sequence[str | None] = None) -> Vectors:
        """`Encoder.encode`."""
        said = [instruction] * len(items) if instruction is None or isinstance(instruction, str) else list(instruction)
        if len(said) != len(items):
            raise ModelError(f"{len(said)} instructions for {len(items)} items; give one, or one for each")
        wanted = query_text_of(self._encoder) if side == "query" else "separate"
        given = [cleaned(item, wanted if one else "separate") for item, one in zip(items, said, strict=True)]
        return self._encoder.encode(given, side, [normalise_text(one) or None for one in said])


class CleaningReranker:
    """A reranker that is given cleaned texts.

    Args:
        reranker: the model.
    """

    def __init__(self, reranker: PairScorer) -> None:
        self._reranker = reranker

    @property
    def fingerprint(self) -> str:
        """Of the model."""
        return self._reranker.fingerprint

    def score_pairs(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """P(Yes) of each pair: float32, shape (N,)."""
        wanted = query_text_of(self._reranker)
        return self._reranker.score_pairs([_cleaned_pair(pair, wanted) for pair in pairs])


def _cleaned_pair(pair: Pair, wanted: QueryText) -> Pair:
    query = cleaned(pair.query, wanted if pair.instruction else "separate")
    return replace(pair, query=query, instruction=normalise_text(pair.instruction) or None, candidate=cleaned(pair.candidate))
