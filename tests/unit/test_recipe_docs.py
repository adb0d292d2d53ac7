"""docs/recipes.md names every key of a recipe, with its default, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticUndefined

from umr.training import recipe_sections as sections

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (?:`(.*?)`|–) \|", re.MULTILINE)
MISSING = "must be given"
HEADINGS = {
    "## `model`": sections.ModelSection,
    "### `model.latent`": sections.LatentSection,
    "### `kind: mbeir`": sections.MBeirSection,
    "### `kind: captions`": sections.CaptionsSection,
    "### `kind: text_pairs`": sections.TextPairsSection,
    "### `kind: scored`": sections.ScoredSection,
    "### `kind: text_retrieval`": sections.TextRetrievalSection,
    "### `kind: triples`": sections.TriplesSection,
    "### `kind: statements`": sections.StatementsSection,
    "### `kind: infonce`": sections.InfoNceSection,
    "### `loss.matryoshka`": sections.MatryoshkaSection,
    "### `kind: distillation`": sections.DistillationSection,
    "### `kind: rerank`": sections.RerankSection,
    "### `kind: generative`": sections.GenerativeSection,
    "## `training`": sections.TrainingSection,
    "### `training.lora`": sections.LoraSection,
}


def declared(section: type[sections.Section]) -> dict[str, Any]:
    """Keys of a section with their defaults; `kind` chooses the section and has none."""
    fields = {name: field.get_default(call_default_factory=True) for name, field in section.model_fields.items() if name != "kind"}  # type: ignore[call-arg]
    return {name: MISSING if default is PydanticUndefined else default for name, default in fields.items()}


@pytest.mark.parametrize("heading", HEADINGS)
def test_tables_are_the_sections(heading: str):
    _, found, rest = PAGE.partition(f"\n{heading}\n")
    assert found, f"no heading {heading}"
    table = re.split(r"\n##", rest)[0]
    written = {key: MISSING if default == "" else yaml.safe_load(default) for key, default in ROW.findall(table)}
    assert written == declared(HEADINGS[heading])


def test_no_section_is_missing():
    def subclasses(section: type[sections.Section]) -> set[type[sections.Section]]:
        return {one for one in section.__subclasses__() if one.__module__ == sections.__name__}

    assert subclasses(sections.Section) == set(HEADINGS.values())
