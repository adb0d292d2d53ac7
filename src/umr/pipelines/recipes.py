"""A training recipe inside a pipeline: changed, checked, and written out before the paths in it are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umr.files import write_text

if TYPE_CHECKING:
    from umr.training.recipe import Recipe


def resolved(path: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """The recipe as plain data, checked. Defaults are not written out: some keys mean more when they are given.

    Args:
        path: YAML file.
        changes: values by dotted key; references to stages stay as they are.

    Raises:
        RecipeError: unreadable file, unknown or effect-less key, bad value.
    """
    from umr.training import recipe

    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
    recipe.load(path, overrides)
    return recipe.read(path.read_text("utf-8"), str(path), overrides)


def claimed(tree: dict[str, Any], out: Path) -> Recipe:
    """The checked recipe, noted in `out` as `train` does itself, which refuses folders that hold something else."""
    from umr.losses.gathered import barrier, rank
    from umr.training import recipe

    checked = recipe.parse(tree, str(out))
    if rank() == 0 and not (out / "recipe.yaml").is_file():
        write_text(out / "recipe.yaml", recipe.dump(checked))
    barrier()
    return checked
