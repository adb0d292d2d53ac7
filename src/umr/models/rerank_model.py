"""A language model as a reranker: rendered pairs in, the logits of a few answers out. One forward pass, no generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from umr.errors import ModelError
from umr.models import backbone
from umr.models.packing import pooled_states
from umr.models.settings import RerankSettings
from umr.rendering.pairs import PairRenderer
from umr.rendering.renderer import Rendered

ANSWERS = ("Yes", "No", "1", "2", "3", "4", "5")
"""What the columns of `RerankModel.forward` stand for; a pair template may spell the first two otherwise."""
NO_TOKEN = -1


class RerankModel(torch.nn.Module):
    """A multimodal language model that answers with one token. What the trainer trains.

    Args:
        network: a transformers model with its language-model head, or one with adapters around it.
        settings: how it reads its rows.
        family: transformers' `model_type`.
        pad_id: token id of padding.
        answer_ids: token ids of `ANSWERS`; -1 for an answer without a token of its own, whose logit is -inf.
    """

    def __init__(self, network: torch.nn.Module, settings: RerankSettings, family: str, pad_id: int, answer_ids: Sequence[int]) -> None:
        super().__init__()
        self.network: Any = network
        self.settings, self.family, self.pad_id, self.answer_ids = settings, family, pad_id, tuple(answer_ids)

    def forward(self, rows: Sequence[Rendered], vocabulary: bool = False) -> torch.Tensor:
        """Answer rows as one batch: (R, 7) fp32 logits of `ANSWERS` at each row's last token, in the rows' order.

        Only these rows of the head are multiplied, at one position of each row; with `vocabulary` all of them are, which gives (R, V).
        """
        last_RD, _ = pooled_states(backbone.inner_model(self.network), rows, self.family, self.pad_id, "mrope")
        device = last_RD.device
        head = self.network.get_output_embeddings()
        if vocabulary:
            with torch.autocast(device.type, enabled=False):
                return F.linear(last_RD.float(), head.weight.float(), None if head.bias is None else head.bias.float())
        ids_A = torch.tensor(self.answer_ids, device=device)
        rows_A = ids_A.clamp(min=0)
        with torch.autocast(device.type, enabled=False):
            bias_A = head.bias[rows_A].float() if head.bias is not None else None
            logits_RA = F.linear(last_RD.float(), head.weight[rows_A].float(), bias_A)
        return logits_RA.masked_fill(ids_A == NO_TOKEN, float("-inf"))


def answer_ids(renderer: PairRenderer, where: object) -> list[int]:
    """Token ids of a template's answers.

    Returns:
        Seven ids; -1 for numbers that the tokenizer has no single token for.

    Raises:
        ModelError: yes or no is no single token after the template's text.
    """
    template = renderer.template
    found = [renderer.token_id(answer) for answer in template.answers]
    for answer, token in zip(template.answers[:2], found, strict=False):
        if token is None:
            raise ModelError(
                f"{where}: the answer {answer!r} of pair template {template.name!r} is not a single token where its layout ends; "
                "choose a template with other answers, or add the token to the tokenizer"
            )
    return [NO_TOKEN if token is None else token for token in found]


def check_head(config: Any, where: object) -> None:
    """Raise `ModelError` for a family whose logits are more than the product of its head."""
    text = config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"):
        if getattr(text, name, None) not in (None, 0, 1):
            raise ModelError(f"{where}: {config.model_type} changes its logits ({name}), which rerankers do not support")
