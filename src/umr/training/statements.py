"""Statements as training data: rows of a language model, each with the token that it is to be continued by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from umr.data.statements import Statement, Statements
from umr.losses.ranking import groups_of
from umr.rendering.prompts import MESSAGE
from umr.rendering.renderer import Rendered, Renderer
from umr.rendering.template import Template


class StatementSource:
    """The groups of a file of statements, the same in every epoch; a row without a group is one of its own.

    Args:
        name: for tables and errors.
        statements: the file.
    """

    def __init__(self, name: str, statements: Statements) -> None:
        self.name, self.statements = name, statements
        self._groups = statements.groups()

    def __len__(self) -> int:
        return len(self._groups)

    def example(self, index: int, epoch: int) -> list[Statement]:
        """The rows of group `index`, those answered by yes first."""
        return sorted((self.statements[row] for row in self._groups[index]), key=lambda statement: not statement.answer)


@dataclass(frozen=True)
class StatementBatch:
    """One device's share of a step: R rendered messages in groups.

    Attributes:
        rows: the messages; those of a group lie together.
        next_R: the token that comes next, int64.
        weight_R: share in the loss; one for each group.
        query_R: int64, the number of the group; -1 where it has not one right statement and wrong ones beside it.
    """

    rows: list[Rendered]
    next_R: torch.Tensor
    weight_R: torch.Tensor
    query_R: torch.Tensor

    @property
    def groups(self) -> list[list[int]]:
        """Places of rows that are compared with each other; a row that is not stands alone."""
        return groups_of(self.query_R)


def message_template(frame: str) -> Template:
    """The layout of a message on its own.

    Args:
        frame: a layout with `{message}`, see `umr.rendering.prompts.chat_frame`.
    """
    content = frame.replace(MESSAGE, "{content}")
    return Template("message", with_instruction=frame.replace(MESSAGE, "{instruction}\n{content}"), without_instruction=content)


def build(groups: Sequence[Sequence[Statement]], renderer: Renderer, yes_id: int, no_id: int) -> StatementBatch:
    """Render messages.

    Args:
        groups: of statements, the right ones first.
        renderer: with a `message_template`, pooling `"last"`.
        yes_id: token of the answer yes.
        no_id: token of the answer no.
    """
    statements = [statement for group in groups for statement in group]
    weights = [1 / len(group) for group in groups for _ in group]
    queries = [
        number if len(group) > 1 and sum(one.answer for one in group) == 1 else -1 for number, group in enumerate(groups) for _ in group
    ]
    return StatementBatch(
        renderer.render([statement.message for statement in statements]),
        torch.tensor([yes_id if statement.answer else no_id for statement in statements]),
        torch.tensor(weights),
        torch.tensor(queries),
    )
