"""Losses of a query over its own list of candidates: distillation from a teacher, and InfoNCE without the rest of the batch.

Both are cross-entropies of softmax(cosine / temperature) over the list; they differ in what they are compared to. Distillation
is KL(teacher || student) with the teacher's scores at the same temperature, which is detached there (spec/umarvel.md 1.10): the
temperature learns to fit the student, not to blur the teacher.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def list_cosines(query_BD: torch.Tensor, candidate_CD: torch.Tensor, list_BK: torch.Tensor) -> torch.Tensor:
    """Cosines of each query with its own candidates.

    Args:
        query_BD: unit vectors.
        candidate_CD: unit vectors.
        list_BK: rows of `candidate_CD`; -1 where a list is shorter.

    Returns:
        (B, K), fp32 (fp64 for fp64 input), -inf at -1.
    """
    kind = torch.promote_types(query_BD.dtype, torch.float32)
    own_BKD = candidate_CD.to(kind)[list_BK.clamp(min=0)]
    return torch.einsum("bd,bkd->bk", query_BD.to(kind), own_BKD).masked_fill(list_BK < 0, float("-inf"))


def distillation(cosine_BK: torch.Tensor, teacher_BK: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Sum over queries of KL(teacher || student).

    Args:
        cosine_BK: of the student; -inf where there is no candidate.
        teacher_BK: scores on the scale of a cosine, (cosine + w P) / (1 + w); whatever stands where there is no candidate is ignored.
        temperature: scalar, with gradient if it is learned.

    Returns:
        Scalar; divide by the number of queries of the global batch.
    """
    missing_BK = torch.isinf(cosine_BK)
    wanted_BK = _logits(teacher_BK.to(cosine_BK.dtype), missing_BK, temperature.detach()).log_softmax(1)
    found_BK = _logits(cosine_BK, missing_BK, temperature).log_softmax(1)
    # 0 * (-inf - -inf) would be NaN, also in the gradient.
    gap_BK = wanted_BK.masked_fill(missing_BK, 0.0) - found_BK.masked_fill(missing_BK, 0.0)
    return (wanted_BK.exp() * gap_BK).sum()


def own_infonce(cosine_BK: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Sum over queries of the cross-entropy with the first of the list as the right answer.

    Args:
        cosine_BK: positive first, then negatives; -inf where there are fewer.
        temperature: scalar.
    """
    logits_BK = _logits(cosine_BK, torch.isinf(cosine_BK), temperature)
    return F.cross_entropy(logits_BK, torch.zeros(len(logits_BK), dtype=torch.long, device=logits_BK.device), reduction="sum")


def _logits(score_BK: torch.Tensor, missing_BK: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    # Divided before -inf is put in: the temperature's gradient of -inf / temperature would be NaN.
    return (score_BK.masked_fill(missing_BK, 0.0) / temperature).masked_fill(missing_BK, float("-inf"))
