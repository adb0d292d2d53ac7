"""The instructions of the suites: data that may be edited.

A YAML file: suite -> task -> instruction, or null for none. `instructions.yaml` beside this file has those of the papers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from umr.errors import RecipeError


@dataclass(frozen=True)
class Wordings:
    """Instructions by suite and task; what is not named has the one that the suite's own files bring, if any."""

    texts: Mapping[str, Mapping[str, str | None]]

    @classmethod
    def load(cls, path: Path | None = None) -> Wordings:
        """Those of the papers, with those of a file in their place where it has some.

        Raises:
            RecipeError: the file cannot be read, or names a suite or a task that does not exist.
        """
        known = _read(resources.files(__package__).joinpath("instructions.yaml").read_text("utf-8"), "instructions.yaml")
        if path is None:
            return cls(known)
        try:
            given = _read(Path(path).read_text("utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read ({error})") from error
        for suite, tasks in given.items():
            if suite not in known:
                raise RecipeError(f"{path}: there is no suite {suite!r}; there are {', '.join(known)}")
            if unknown := [task for task in tasks if known[suite] and task not in known[suite]]:
                raise RecipeError(f"{path}: {suite} has no task {unknown[0]!r}; it has {', '.join(known[suite])}")
        return cls({suite: {**tasks, **given.get(suite, {})} for suite, tasks in known.items()})

    def of(self, suite: str, task: str, own: str | None) -> str | None:
        """The instruction of a task; `own` is that of the suite's files."""
        return self.texts.get(suite, {}).get(task, own)


def _read(text: str, where: str) -> dict[str, dict[str, str | None]]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not all(isinstance(tasks, dict) for tasks in content.values()):
        raise RecipeError(f"{where}: must map suites to tasks, and tasks to instructions")
    for suite, tasks in content.items():
        for task, words in tasks.items():
            if words is not None and (not isinstance(words, str) or not words.strip()):
                raise RecipeError(f"{where}: {suite}: {task}: must be an instruction or null, not {words!r}")
    return content
