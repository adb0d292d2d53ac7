"""Pieces of the pages: heat maps and bars whose numbers can be read without their colours, and plots for light and dark screens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from umr.gallery import picture_of, scrolling

STYLE = """<style>
:root{--tint:#2f5fb3;--soft:#f2f4f7;--line:#ccd2da;--dim:#5a6472}
@media(prefers-color-scheme:dark){:root{--tint:#6f9cf0;--soft:#20242a;--line:#3d444d;--dim:#a3adba}}
h1{margin-bottom:.2rem}h2{margin-top:2.6rem;padding-top:.6rem;border-top:2px solid var(--line)}h3{margin-bottom:.2rem}
nav{display:flex;gap:.4rem 1.2rem;flex-wrap:wrap;margin:1rem 0}a{color:inherit}.dim{color:var(--dim)}
figcaption{color:var(--dim)}table{font-variant-numeric:tabular-nums;margin:.3rem 0}
th{font-weight:600;vertical-align:bottom}td{white-space:nowrap}
.tiles{display:flex;gap:.8rem;flex-wrap:wrap;margin:1.2rem 0}
.tile{background:var(--soft);border:1px solid var(--line);border-radius:8px;padding:.6rem 1rem;min-width:8.5rem}
.tile b{display:block;font-size:1.7rem;line-height:1.3}.tile span{color:var(--dim);font-size:.85rem}
td.heat{background:color-mix(in srgb,var(--tint) calc(var(--share)*.5%),transparent);min-width:3rem}
td.wanted{outline:2px solid currentColor;outline-offset:-3px;font-weight:600}tr.own td{font-weight:600}
.bar{display:flex;min-width:14rem;height:1.3rem;border:1px solid var(--line)}.bar span{overflow:hidden;height:100%}
.bar .type1{background:var(--tint)}.bar .type2{background:repeating-linear-gradient(45deg,var(--tint) 0 2px,transparent 2px 7px)}
.bar .type3{background:radial-gradient(var(--tint) 1px,transparent 1.4px) 0 0/5px 5px}
.key{display:inline-block;width:1.6rem;min-width:0;height:.9rem;vertical-align:-.1rem;margin:0 .3rem 0 1rem}
.key span{display:block;width:100%}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
.row picture,.row figure{min-width:0;max-width:100%;margin:0}summary{cursor:pointer}
@media(max-width:600px){body{margin:1rem auto}th,td{padding:.2rem .45rem}h1{font-size:1.5rem}}
</style>"""


def tiles(numbers: Sequence[tuple[str, str]]) -> str:
    """The numbers to see first: value and what it is."""
    each = (f"<div class=tile><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in numbers)
    return f"<div class=tiles>{''.join(each)}</div>"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and what they are."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in pairs)}</dl>"


def heat(corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None], str | None]], caption: str) -> str:
    """A table of shares in percent, the darker the more; a frame is around the column that a row looks for.

    Args:
        corner: head of the first column.
        columns: heads of the others.
        rows: name, shares (`None` for an empty cell), and the column framed, if any.
        caption: a line above it.
    """
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in (corner, *columns))
    body = []
    for name, shares, wanted in rows:
        cells = [_cell(share, column == wanted) for column, share in zip(columns, shares, strict=True)]
        body.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return scrolling(f"<table><tr>{head}</tr>{''.join(body)}</table>", caption)


def _cell(share: float | None, wanted: bool) -> str:
    if share is None:
        return "<td></td>"
    return f"<td class='heat{' wanted' if wanted else ''}' style='--share:{share:.1f}'>{share:.1f}</td>"


def bar(shares: Mapping[str, float]) -> str:
    """One row of shares in percent, filled in a pattern by name; the names are classes of `STYLE`."""
    said = ", ".join(f"{name} {share:.1f} %" for name, share in shares.items())
    parts = "".join(f"<span class={name} style='width:{share:.2f}%'></span>" for name, share in shares.items())
    return f"<div class=bar role=img aria-label='{escape(said)}' title='{escape(said)}'>{parts}</div>"


def key(names: Mapping[str, str]) -> str:
    """What the patterns of `bar` mean."""
    return "".join(f"<span class='bar key'><span class={name}></span></span>{escape(meaning)}" for name, meaning in names.items())


def themed(draw: Callable[[], Any], alt: str) -> str:
    """A matplotlib figure for light and for dark screens.

    Args:
        draw: makes the figure; called once for each.
        alt: what it shows, in words.
    """
    import matplotlib

    sources = []
    for style in ({}, {"figure.facecolor": "#16181b", "axes.facecolor": "#16181b", "savefig.facecolor": "#16181b", **_light_ink()}):
        with matplotlib.rc_context(style):
            sources.append(picture_of(draw()))
    light, dark = sources
    image = f"<img class=plot alt='{escape(alt)}' src='{light}'>"
    return f"<picture><source media='(prefers-color-scheme:dark)' srcset='{dark}'>{image}</picture>"


def _light_ink() -> dict[str, str]:
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor")
    return {**dict.fromkeys(names, "#e6e6e6"), "legend.facecolor": "#16181b", "legend.edgecolor": "#555555"}


def numbers(content: Any) -> str:
    """Everything that the page says in numbers, unrounded, for programs: a block of JSON that browsers do not run."""
    text = json.dumps(content, sort_keys=True).replace("<", "\\u003c")  # nothing in a text may end the block
    return f"<script type='application/json' id=numbers>{text}</script>"
