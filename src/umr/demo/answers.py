"""Three queries answered live: a text, an image, and an image with a change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from umr.data.mbeir import MBeir, Pool
from umr.evaluation.embeddings import Embeddings
from umr.items import Image, Item
from umr.models.embedder import Embedder
from umr.progress import progress, quiet
from umr.store import exact_topk

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

ASKED = (("a text", "scenes_task0"), ("an image", "scenes_task3"), ("an image with a change", "edits_task7"))
"""Kind of query, and the World setting that it is taken from."""
SHOWN = 3


def three_answers(embedder: Embedder, world: Path, work_dir: Path) -> Group:
    """Search with the first test query of three settings and draw the results for a terminal.

    Args:
        embedder: the trained model.
        world: the benchmark.
        work_dir: where its candidate vectors are kept.
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table

    tree = MBeir(world)
    embeddings = Embeddings(embedder, tree, work_dir)
    panels: list[RenderableType] = []
    for kind, name in ASKED:
        setting = next(one for one in tree.settings("test") if one.name == name)
        query, pool = tree.queries(setting, "test")[0], tree.pool(setting, "test")
        with quiet(), progress("embedding") as bar:
            store = embeddings.candidates(pool, bar)
        vector_1D = embedder.encode([query.item], "query", query.instructions[0])
        rows_1K, scores_1K = exact_topk(vector_1D, store, SHOWN)
        table = Table.grid(padding=(0, 3))
        table.add_row(picture(query.item), *(picture(pool.item(did)) for did in _ids(pool, rows_1K[0].tolist())))
        marks = ["right" if did in query.positives else "" for did in _ids(pool, rows_1K[0].tolist())]
        captions = [f"{score:.2f} {mark}" for score, mark in zip(scores_1K[0].tolist(), marks, strict=True)]
        table.add_row(query.item.text or "(image)", *captions)
        panels.append(Panel(table, title=f"{kind}: {query.instructions[0]}", title_align="left", expand=False))
    return Group(*panels)


def _ids(pool: Pool, rows: list[int]) -> list[str]:
    return [pool.ids[row] for row in rows]


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
