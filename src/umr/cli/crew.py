"""Options of verbs whose work several workers may share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from umr.bulk.crew import Crew

Workers: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Processes that share the work; on Ray actors. Default: this one; on Ray one for each GPU.")
]
Threads: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Threads of each worker. Default: the cores, shared by the workers.")]
Ray: TypeAlias = Annotated[str | None, typer.Option(help="Share the work on a Ray cluster: the address of its head, or local.")]


def crew_of(workers: int | None, threads: int | None, ray: str | None) -> Crew:
    """Who works."""
    from umr.bulk.crew import Crew

    return Crew(workers, ray, threads)
