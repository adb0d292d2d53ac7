"""Which instruction the queries of a task of mteb's are asked with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from mteb.abstasks.task_metadata import TaskMetadata, TaskType
from mteb.types import PromptType

from umr.errors import RecipeError

_LOOKED_FOR = {"text": "text", "image": "images", "image,text": "images with text", "video": "videos", "video,text": "videos with text"}


@dataclass(frozen=True)
class Instructions:
    """From tasks to instructions: what is given, else the task's own prompt for queries, else `"Retrieve images based on user query."`.

    That last one is mteb's for retrieval tasks without a prompt, with what the task looks for in the place of "text".

    Attributes:
        given: by name of a task, or by type such as `"Any2AnyRetrieval"`; a name goes before a type. None: no instruction.
        default: whether tasks without a prompt get that last one.
    """

    given: Mapping[str, str | None] = field(default_factory=dict)
    default: bool = True

    def of(self, task: TaskMetadata) -> str | None:
        """The instruction of a task's queries; None for none. Rows with an instruction of their own keep that."""
        for key in (task.name, task.type):
            if key in self.given:
                return self.given[key] or None
        prompt = task.prompt.get("query") if isinstance(task.prompt, dict) else task.prompt
        if prompt or not self.default:
            return prompt or None
        kinds = ",".join(sorted(set(task.get_modalities(PromptType.document)), key=("image", "video", "text").index))
        return f"Retrieve {_LOOKED_FOR.get(kinds, 'results')} based on user query."

    def check(self, tasks: Sequence[Any]) -> None:
        """Raise `RecipeError` for a key that is none of these tasks' name or type."""
        known = {key for task in tasks for key in (task.metadata.name, task.metadata.type)}
        for key in self.given:
            if key not in known:
                hint = "no task of this type is run" if key in get_args(TaskType) else "it is neither a task that is run nor a type"
                raise RecipeError(f"the instruction of {key!r} has no effect: {hint}")
