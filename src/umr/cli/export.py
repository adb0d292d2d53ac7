"""`umr export`: a model as a folder for another engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    kind: Annotated[Literal["sentence-transformers", "vllm"], typer.Argument(help="Engine that will load the folder.")],
    model: Annotated[str, typer.Argument(help="Model folder or hub id.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, which must not exist.")],
) -> None:
    """Write a folder that gives the same vectors in another engine, and say how to start it; refuse where it would give others."""
    from umr.cli import console

    console.hush_transformers()
    if kind == "vllm":
        from umr.models.exporting_vllm import export_vllm

        line = export_vllm(model, out)
        console.say(f"{out}: for vLLM's pooling server; ask it with messages, since it puts no template around a plain input\n{line}")
        return
    from umr.models.exporting import export_sentence_transformers

    export_sentence_transformers(model, out)
    carried = any(out.glob("*.py"))
    console.say(f"{out}: SentenceTransformer({str(out)!r}{', trust_remote_code=True' if carried else ''}) loads it")
