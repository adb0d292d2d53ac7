"""`umr init`: make a small checkpoint from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

SAMPLE = """\
A model that finds anything with anything reads text, looks at images and watches video.
The red circle is above the small blue square, and a green triangle lies to the left of it.
Find an image that shows what this sentence describes. Which caption belongs to this picture?
Make the large yellow star purple, move it to the bottom right corner, and remove the white ring.
Two black crosses, three striped hexagons, and one dotted heart stand in the upper half of the scene.
Retrieve a passage that answers the question. Identify the same scene seen from another side.
Zero one two three four five six seven eight nine ten; what, where, when, who, how, and why?
"""
"""What the tokenizer is trained on when no text is given: enough to try things out."""


def init(
    family: Annotated[Literal["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "llava-next"], typer.Argument(help="Backbone family.")],
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    size: Annotated[Literal["tiny", "small", "base"], typer.Option(help="About 2, 10 or 100 million parameters.")] = "tiny",
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text to train the tokenizer on: .txt, .jsonl, or a benchmark folder. May be repeated. Default: a few sentences."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Make a checkpoint from nothing: config, tokenizer, processor and random weights, as transformers loads them."""
    from umr.cli import console
    from umr.data.texts import read_texts
    from umr.models.tiny import make_checkpoint

    console.hush_transformers()
    lines = [line for path in texts for line in read_texts(path)] if texts else SAMPLE.splitlines()
    parameters = make_checkpoint(family, out, lines, size=size, seed=seed)
    console.say(f"{out}: a {family} with {parameters:,} random parameters, its tokenizer trained on {len(lines):,} texts")
