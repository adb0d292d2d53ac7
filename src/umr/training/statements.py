"""Statements as training data: rows of a language model, each with the token that it is to be continued by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from umr.data.statements import Statement, Statements
from umr.rendering.prompts import MESSAGE
from umr.rendering.renderer import Rendered, Renderer
from umr.rendering.template import Template


class StatementSource:
    """The rows of a file of statements, the same in every epoch.

    Args:
        name: for tables and errors.
        statements: the file.
    """

    def __init__(self, name: str, statements: Statements) -> None:
        self.name, self.statements = name, statements

    def __len__(self) -> int:
        return len(self.statements)

    def example(self, index: int, epoch: int) -> Statement:
        """Row `index`."""
        return self.statements[index]


@dataclass(frozen=True)
class StatementBatch:
    """One device's share of a step: R rendered messages, and the token that comes next, int64."""

    rows: list[Rendered]
    next_R: torch.Tensor


def message_template(frame: str) -> Template:
    """The layout of a message on its own.

    Args:
        frame: a layout with `{message}`, see `umr.rendering.prompts.chat_frame`.
    """
    content = frame.replace(MESSAGE, "{content}")
    return Template("message", with_instruction=frame.replace(MESSAGE, "{instruction}\n{content}"), without_instruction=content)


def build(statements: Sequence[Statement], renderer: Renderer, yes_id: int, no_id: int) -> StatementBatch:
    """Render messages.

    Args:
        statements: R of them.
        renderer: with a `message_template`, pooling `"last"`.
        yes_id: token of the answer yes.
        no_id: token of the answer no.
    """
    rows = renderer.render([statement.message for statement in statements])
    return StatementBatch(rows, torch.tensor([yes_id if statement.answer else no_id for statement in statements]))
