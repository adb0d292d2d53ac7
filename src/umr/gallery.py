"""Reports as one HTML file that needs nothing else: the page, items as cards with their pictures, and plots."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from umr.errors import MediaError
from umr.items import Image, Item, Video

if TYPE_CHECKING:
    import PIL.Image

SIDE = 320
"""Larger pictures are shown this large at most: a card is 150 pixels wide, screens may have two dots a pixel."""
FRAMES = 4
LETTERS = 400
"""Of a longer text the beginning is shown."""
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto;margin:1rem 0}tr.average{font-weight:600}img.plot{max-width:100%}
.row{display:flex;gap:.8rem;align-items:flex-start;margin:.6rem 0 1.4rem;flex-wrap:wrap}
.card{width:150px;font-size:.8rem;border:2px solid #ccc;border-radius:6px;padding:6px;background:#fafafa;overflow-wrap:anywhere}
.card.query{border-color:#456;background:#eef3f8}.card.right{border:3px double #187a3c}
.card img{width:100%;image-rendering:auto;display:block;margin-bottom:4px}.mark{font-weight:600}
@media(prefers-color-scheme:dark){body{background:#16181b;color:#e6e6e6}.card{background:#222;border-color:#555}
.card.query{background:#1d2833;border-color:#89a}.card.right{border-color:#5cc987}th,td{border-color:#444}img.plot{background:#fff}}
"""
QUALITY = 85
"""Of pictures that are kept as JPEG."""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page."""
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def card(item: Item, mark: str, kind: str = "") -> str:
    """An item with its pictures (of a video the first frames) and its text.

    Args:
        item: what to show; a medium that cannot be read is replaced by what is wrong with it.
        mark: the line above it.
        kind: `"query"` or `"right"` for their looks.
    """
    try:
        images = [part.open() for part in item.parts if isinstance(part, Image)]
        for part in item.parts:
            if isinstance(part, Video):
                images += list(part.frames().images)[:FRAMES]
        text = _short(item.text)
    except MediaError as error:
        images, text = [], str(error)
    pictures = "".join(f"<img alt='{escape(item.id or '')}' src='{_picture(image)}'>" for image in images)
    return f"<div class='card {kind}'><div class=mark>{escape(mark)}</div>{pictures}{escape(text)}</div>"


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else text[:LETTERS].rsplit(" ", 1)[0] + " …"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of texts, which are escaped; wider than the window it scrolls by itself.

    Args:
        head: names of the columns; the first holds words, the others numbers.
        rows: cells.
        caption: a line above it.
    """
    top = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return scrolling(f"<table><tr>{top}</tr>{body}</table>", caption)


def scrolling(content: str, caption: str = "") -> str:
    """HTML that scrolls by itself where it is wider than the window, with a line above it, which is escaped."""
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure class=wide>{said}{content}</figure>"


def plot(figure: Any, alt: str) -> str:
    """A matplotlib figure as an image; the figure is closed."""
    from matplotlib import pyplot

    source = picture_of(figure)
    pyplot.close(figure)
    return f"<img class=plot alt='{escape(alt)}' src='{source}'>"


def picture_of(figure: Any) -> str:
    """A matplotlib figure as the source of an image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return _data_uri(buffer.getvalue())


def _picture(image: PIL.Image.Image) -> str:
    if max(image.size) > SIDE:
        image = image.copy()
        image.thumbnail((SIDE, SIDE))
    found = {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": QUALITY})):  # drawings are smaller as PNG, photographs as JPEG
        buffer = io.BytesIO()
        image.save(buffer, format=kind, **options)
        found[kind] = buffer.getvalue()
    smaller = min(found, key=lambda kind: len(found[kind]))
    return _data_uri(found[smaller], smaller)


def _data_uri(picture: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
