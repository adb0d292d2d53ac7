"""A reranker of ours as a cross-encoder of mteb's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType
from torch.utils.data import DataLoader

from umr.evaluation.mteb.instructions import Instructions
from umr.evaluation.mteb.model_card import check_precision, has_own_prompts, model_card
from umr.evaluation.mteb.rows import windows
from umr.models.reranker import Reranker, Scores
from umr.progress import progress
from umr.rendering.pairs import Pair


class MtebReranker:
    """What `mteb.evaluate` takes for reranking tasks: mteb's `CrossEncoderProtocol` over a `Reranker`.

    The order is that of P(Yes) alone.

    Args:
        reranker: the model.
        name: what mteb calls it.
        instructions: as of `MtebEncoder`.

    Attributes:
        mteb_model_meta: mteb's metadata; the revision is the reranker's fingerprint.

    Raises:
        RecipeError: a name without a slash.
    """

    def __init__(self, reranker: Reranker, name: str = "umr/reranker", instructions: Mapping[str, str | None] | None = None) -> None:
        self.reranker = reranker
        self.instructions = Instructions(instructions or {}, default=not has_own_prompts(reranker))
        self.mteb_model_meta = model_card(name, "cross-encoder", reranker, self.instructions)

    def predict(
        self,
        inputs1: DataLoader[Any],
        inputs2: DataLoader[Any],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **options: Any,
    ) -> Scores:
        """P(Yes) of each row of `inputs1` with the same row of `inputs2`: float32, shape (N,).

        Args:
            inputs1: queries, one a pair.
            inputs2: candidates, one a pair.
            task_metadata: decides the instruction.
            hf_split: not used.
            hf_subset: not used.
            prompt_type: not used.
            options: mteb's; batches are packed by the reranker itself.

        Raises:
            RecipeError: a `precision` is asked for.
            RenderError: rows hold what the model does not take.
        """
        check_precision(options)
        found = [np.zeros(0, np.float32)]
        with progress(f"{task_metadata.name}: reranking", total=len(inputs1.dataset), unit="pairs") as bar:  # type: ignore[arg-type]
            asked = windows(inputs1, self.instructions.of(task_metadata))
            for queries, candidates in zip(asked, windows(inputs2, None), strict=True):
                both = zip(queries, candidates, strict=True)
                found.append(self.reranker.score_pairs([Pair(query.item, query.instruction, one.item) for query, one in both]))
                bar.advance(len(queries))
        return np.concatenate(found)
