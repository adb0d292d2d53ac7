"""`umr import`: a published checkpoint as a folder of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def import_checkpoint(
    kind: Annotated[
        Literal["umarvel", "lamra", "nv-embed", "mm-embed"],
        typer.Argument(help="What was published: U-MARVEL, LamRA-Ret, NV-Embed, or MM-Embed."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the released files.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, which must not exist.")],
    eyes: Annotated[
        Path | None,
        typer.Option(help="For nv-embed: folder of a LLaVA-NeXT that gives vision tower and projector, to train MM-Embed from."),
    ] = None,
) -> None:
    """Turn a published checkpoint into a model folder that gives the vectors its authors measured with."""
    from umr.cli import console
    from umr.models.importing import import_checkpoint as run

    console.hush_transformers()
    done = run(kind, folder, out, eyes)
    facts = [f"{done.parameters:,} parameters"]
    facts.append("no learned temperature" if done.temperature is None else f"temperature {done.temperature:g}")
    if done.added_tokens:
        facts.append("added " + " ".join(done.added_tokens))
    if done.new_rows:
        facts.append(f"{done.new_rows} rows new in the embedding matrix")
    console.say(f"{done.folder}: {kind}, {', '.join(facts)}")
