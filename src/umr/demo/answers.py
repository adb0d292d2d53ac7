"""Three queries answered live: a text, an image, and an image with a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from umr.demo.search import Search
from umr.items import Image, Item

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

ASKED = (("a text", "scenes_task0"), ("an image", "scenes_task3"), ("an image with a change", "edits_task7"))
"""Kind of query, and the World setting that it is taken from."""
SHOWN = 3


def three_answers(search: Search) -> Group:
    """Search with the first test query of three settings and draw the results for a terminal."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table

    panels: list[RenderableType] = []
    for kind, name in ASKED:
        answer = search.answer(name)
        shown = answer.results[:SHOWN]
        table = Table.grid(padding=(0, 3))
        table.add_row(picture(answer.query), *(picture(one.item) for one in shown))
        table.add_row(answer.query.text or "(image)", *(f"{one.score:.2f} {'right' if one.right else ''}" for one in shown))
        panels.append(Panel(table, title=f"{kind}: {answer.instruction}", title_align="left", expand=False))
    return Group(*panels)


def picture(item: Item, width: int = 24) -> Text:
    """An item for a terminal: its first image in half-block characters, or its text."""
    from rich.text import Text

    images = [part for part in item.parts if isinstance(part, Image)]
    drawn = Text()
    if images:
        image = images[0].open()
        height = max(2, round(width * image.height / image.width / 2)) * 2
        pixels = np.asarray(image.resize((width, height)))
        for y in range(0, height, 2):
            for x in range(width):
                upper, lower = (f"#{pixels[row, x].tobytes().hex()}" for row in (y, y + 1))
                drawn.append("▀", style=f"{upper} on {lower}")
            drawn.append("\n")
    else:
        drawn.append("\n".join(_wrap(item.text, width)))
    return drawn


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width) or [""]
