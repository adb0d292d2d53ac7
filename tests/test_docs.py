"""Every `umr` command that documentation, README and recipes show is one that `umr` understands, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from umr.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
COMMAND = re.compile(r"(?:^|-m |nohup )umr (?P<arguments>[a-z].*)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def commands(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where each command stands, and its arguments."""
    text = path.read_text("utf-8")
    if path.suffix == ".yaml":
        lines = [(number, line.removeprefix("#").strip()) for number, line in enumerate(text.splitlines(), 1) if line.startswith("#   ")]
    else:
        lines, inside, before = [], False, ""
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("```"):
                inside = not inside
            elif inside and line.endswith("\\"):
                before += line[:-1] + " "
            elif inside:
                lines.append((number, before + line.strip()))
                before = ""
    for number, line in lines:
        for part in line.split(" && "):
            if match := COMMAND.search(part.removeprefix("$ ")):
                yield f"{path.relative_to(ROOT)}:{number}", shlex.split(match["arguments"], comments=True)


FOUND = [one for path in [*PAGES, *RECIPES] for one in commands(path)]


def test_there_are_commands_to_look_at():
    assert len(FOUND) > 60
    assert len({arguments[0] for _, arguments in FOUND}) > 12


@pytest.mark.parametrize(("place", "arguments"), [pytest.param(*one, id=f"{one[0]} {one[1][0]}") for one in FOUND])
def test_commands_are_understood(place: str, arguments: list[str]):
    group = typer.main.get_command(app)
    arguments = [one for one in arguments if one not in ("...", "…")]
    context = group.make_context("umr", list(arguments), resilient_parsing=False)
    rest = [*context._protected_args, *context.args]
    name, command, rest = group.resolve_command(context, rest)
    assert command is not None, f"{place}: no verb {name}"
    if "--help" not in rest:
        command.make_context(name, rest, parent=context)  # raises for an unknown option, a missing one, or a value that is none


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    for target, anchor in LINK.findall(path.read_text("utf-8")):
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), f"{path.relative_to(ROOT)}: {target}"
        if anchor and there.suffix == ".md":
            heads = [line.lstrip("#").strip() for line in there.read_text("utf-8").splitlines() if line.startswith("#")]
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{path.relative_to(ROOT)}: {target}#{anchor}"
