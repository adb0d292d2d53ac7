"""An encoder of ours as an encoder of mteb's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.similarity_functions import cos_sim, pairwise_cos_sim
from mteb.types import PromptType
from torch.utils.data import DataLoader

from umr.evaluation.mteb.instructions import Instructions
from umr.evaluation.mteb.model_card import check_precision, has_own_prompts, model_card
from umr.evaluation.mteb.rows import windows
from umr.items import Side
from umr.progress import progress
from umr.protocols import Encoder, Vectors


class MtebEncoder:
    """What `mteb.evaluate` takes as a model: mteb's `EncoderProtocol` over an `Embedder` or another `Encoder`.

    Retrieval queries are asked with an instruction, see `Instructions`; everything else is embedded as a candidate, which has none.

    Args:
        encoder: the model.
        name: what mteb calls it.
        instructions: by name or type of task, in place of the tasks' prompts; None for none at all.

    Attributes:
        mteb_model_meta: mteb's metadata; the revision is the encoder's fingerprint.

    Raises:
        RecipeError: a name without a slash.
    """

    def __init__(self, encoder: Encoder, name: str = "umr/model", instructions: Mapping[str, str | None] | None = None) -> None:
        self.encoder = encoder
        self.instructions = Instructions(instructions or {}, default=not has_own_prompts(encoder))
        self.mteb_model_meta = model_card(name, "dense", encoder, self.instructions, encoder.dimension)

    def encode(
        self,
        inputs: DataLoader[Any],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **options: Any,
    ) -> Vectors:
        """Embed the rows of a loader in order: float32, shape (N, D), rows of unit length.

        Args:
            inputs: mteb's loader.
            task_metadata: decides the instruction.
            hf_split: not used.
            hf_subset: not used.
            prompt_type: `query` for queries.
            options: mteb's; batches are packed by the encoder itself.

        Raises:
            RecipeError: a `precision` is asked for.
            RenderError: rows hold what the model does not take.
        """
        check_precision(options)
        side: Side = "query" if prompt_type == PromptType.query else "candidate"
        instruction = self.instructions.of(task_metadata) if side == "query" else None
        found = [np.zeros((0, self.encoder.dimension), np.float32)]
        with progress(f"{task_metadata.name}: embedding {side}", total=len(inputs.dataset), unit="rows") as bar:  # type: ignore[arg-type]
            for rows in windows(inputs, instruction):
                wordings = [row.instruction for row in rows] if side == "query" else None
                found.append(self.encoder.encode([row.item for row in rows], side, wordings))
                bar.advance(len(rows))
        return np.concatenate(found)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of all pairs: (N, D) and (M, D) to (N, M)."""
        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines row by row: (N, D) and (N, D) to (N,)."""
        return pairwise_cos_sim(embeddings1, embeddings2)
