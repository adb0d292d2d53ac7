"""`umr serve`: models and collections over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umr.cli.eval import Dtype


def serve(
    model: Annotated[list[str] | None, typer.Option(help="Model folder or hub id that embeds, or NAME=PATH. May be repeated.")] = None,
    reranker: Annotated[list[str] | None, typer.Option(help="Model folder or hub id that reranks, or NAME=PATH. May be repeated.")] = None,
    collection: Annotated[list[str] | None, typer.Option(help="Folder of a collection, or NAME=FOLDER. May be repeated.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of further collections, in which callers may make new ones.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Callers may search, but change nothing.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 8000,
    key_file: Annotated[Path | None, typer.Option(help="File of API keys, one a line; the variable UMR_API_KEYS adds more.")] = None,
    open_to_all: Annotated[bool, typer.Option("--open", help="Listen on other addresses than the loopback without keys.")] = False,
    cors: Annotated[list[str] | None, typer.Option(metavar="ORIGIN", help="Web page that may call from browsers. May be repeated.")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name that requests may call this server by. May be repeated.")
    ] = None,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch media from public addresses that requests name.")] = False,
    dimensions: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Shorter vectors that the model was trained for, where its folder does not say so. May be repeated."),
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Precision of --model and --reranker; collections say it of theirs. Default: float32.")
    ] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of a batch. Default: by device.")] = None,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Largest request.")] = 32,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Largest image, width times height. Default: 64 million, of a JPEG 200 million.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until an answer begins.")] = 60.0,
    queue: Annotated[int, typer.Option(min=1, help="Items that may be under way; more are told to come back later.")] = 2048,
    drain_seconds: Annotated[float, typer.Option(min=0, help="Seconds between the signal to end and the end of new requests.")] = 0.0,
) -> None:
    """Answer requests over HTTP: embeddings and reranking in the shapes of OpenAI, Cohere and Jina, and searches in collections."""
    import os
    import sys
    from dataclasses import replace

    from umr import media
    from umr.cli import console
    from umr.errors import RecipeError
    from umr.serving import loading, logs, running
    from umr.serving.settings import LOCAL_HOSTS, Limits, ServerSettings, UrlSettings, load_keys

    if not (model or reranker or collection or home):
        raise RecipeError("there is nothing to serve; give --model, --reranker, --collection or --home")
    if dtype is not None and not (model or reranker):
        raise RecipeError("--dtype has no effect without --model or --reranker: collections are loaded in the precision they were made in")
    if read_only and not (collection or home):
        raise RecipeError("--read-only has no effect without collections; leave it out")
    keys, local = load_keys(key_file, os.environ), running.is_loopback(host)
    if open_to_all and (keys or local):
        raise RecipeError("--open has no effect with API keys or on the loopback address; leave it out")
    if not (keys or local or open_to_all):
        raise RecipeError(f"on {host} others can reach this server: give --key-file or set UMR_API_KEYS, or say --open")
    limits = Limits()
    limits = replace(
        limits,
        body_bytes=max_body_mb << 20,
        queued_bytes=max(limits.queued_bytes, 4 * max_body_mb << 20),
        request_seconds=timeout,
        queued_items=queue,
        items=min(limits.items, queue),
    )
    hosts = (*LOCAL_HOSTS, *(allow_host or ())) if local else tuple(allow_host or ())
    settings = ServerSettings(keys, tuple(cors or ()), hosts, UrlSettings() if allow_urls else None, limits)
    if max_pixels is not None:
        media.MAX_PIXELS = media.MAX_JPEG_PIXELS = max_pixels
    console.hush_transformers()
    logs.configure()
    with running.listen(host, port) as listening:
        running.leave_a_core()
        service = loading.load(
            settings,
            model or [],
            reranker or [],
            collection or [],
            home,
            read_only,
            dimensions or [],
            dtype=(dtype or Dtype.float32).value,
            batch_tokens=batch_tokens,
        )
        shown = f"[{host}]" if ":" in host else host
        console.say(f"http://{shown}:{listening.getsockname()[1]} answers until Ctrl-C")
        sys.stdout.flush()  # whoever starts a server through a pipe waits for this line
        running.Server(service, drain_seconds).run([listening])
