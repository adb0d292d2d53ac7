"""How well a generative model answers statements: accuracy by kind of question, chance being one half."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from umr.data.statements import Statements
from umr.errors import ModelError
from umr.items import Item
from umr.models import batching
from umr.models.reranker import RerankEngine, Reranker, sigmoid
from umr.progress import progress
from umr.rendering.prompts import chat_frame
from umr.rendering.renderer import Renderer
from umr.training.statements import message_template

_TRUE = "true"
"""Group of the statements that are to be answered by yes."""
_ROWS = 512


def answer(reranker: Reranker, messages: list[Item]) -> npt.NDArray[np.float32]:
    """P(yes) of messages in the frame of the model's chat template, shape (N,), in their order.

    Args:
        reranker: the model, with the two answers that are compared.
        messages: texts and pictures in their order, the question among them.

    Raises:
        ModelError: the model is a CrossEncoder, or its chat template cannot be used.
    """
    engine = reranker.engine
    if not isinstance(engine, RerankEngine):
        raise ModelError("a CrossEncoder scores pairs and answers no messages; give a generative model")
    template = message_template(chat_frame(engine.processor, "the model"))
    renderer = Renderer(template, engine.renderer.tokenizer, engine.renderer.vision, engine.model.settings.max_tokens, "last")
    logits_NA = batching.encode_stream(
        len(messages),
        lambda start, stop: renderer.render(messages[start:stop]),
        engine.cost,
        engine.forward,
        reranker.batch_tokens or batching.default_budget(next(engine.model.parameters()).device.type),
    )
    return sigmoid(engine.log_odds(logits_NA))


def accuracy(reranker: Reranker, statements: Statements) -> dict[str, dict[str, float]]:
    """Share of right answers in percent, by kind and by `"all"`, `"true"`, and how far wrong statements are from the truth.

    `"all"` weighs every statement equally. P(yes) of exactly one half counts as no.
    """
    right: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    with progress("answering statements", total=len(statements), unit="statements") as bar:
        for start in range(0, len(statements), _ROWS):
            rows = [statements[row] for row in range(start, min(start + _ROWS, len(statements)))]
            for row, yes in zip(rows, answer(reranker, [row.message for row in rows]), strict=True):
                fine = bool(yes > 0.5) == row.answer
                right[row.kind, "all"].append(fine)
                right[row.kind, _TRUE if row.answer else row.miss or "false"].append(fine)
            bar.advance(len(rows))
    kinds = dict.fromkeys(kind for kind, _ in right)
    return {kind: {group: 100 * float(np.mean(marks)) for (of, group), marks in right.items() if of == kind} for kind in kinds}
