"""A reranker's loss: cross-entropy over the answers it may give, each query weighing the same.

The original trains on the whole vocabulary and on the header of the assistant's turn as well (spec/umarvel.md 1.9). What it is
used for is the softmax over the admissible answers, so that is what is trained here; no logits of the other tokens are made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Questions:
    """What is asked in R rows.

    Attributes:
        answer_R: index of the right answer among the model's answers.
        first_R: index of the first admissible answer.
        count_R: how many answers, from the first on, are admissible.
        weight_R: share in the loss.
    """

    answer_R: torch.Tensor
    first_R: torch.Tensor
    count_R: torch.Tensor
    weight_R: torch.Tensor


def answer_loss(logits_RA: torch.Tensor, questions: Questions) -> torch.Tensor:
    """Weighted sum of cross-entropies over each row's admissible answers.

    Args:
        logits_RA: of all answers, shape (R, A).
        questions: R of them.
    """
    place_A = torch.arange(logits_RA.shape[1], device=logits_RA.device)
    first_R1 = questions.first_R[:, None]
    admissible_RA = (place_A >= first_R1) & (place_A < first_R1 + questions.count_R[:, None])
    log_probability_RA = logits_RA.masked_fill(~admissible_RA, float("-inf")).log_softmax(1)
    right_R = log_probability_RA.gather(1, questions.answer_R[:, None])[:, 0]
    return -(right_R * questions.weight_R.to(right_R.dtype)).sum()
