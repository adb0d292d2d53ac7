"""From the inputs of a request to items: data URIs are decoded, addresses fetched where that is allowed, videos put into files."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from umr.errors import UmrError
from umr.items import Image, Item, Part, Text, Video
from umr.serving.errors import RequestError
from umr.serving.fetching import Fetcher
from umr.serving.gate import Gate
from umr.serving.inputs import AnyInput, ItemInput, TextPart
from umr.serving.runtime import Runtime

_DATA_URI = re.compile(r"data:(image|video)/[a-z0-9.+-]+;base64,")


class Reader:
    """Makes items of inputs.

    Args:
        runtime: where media are decoded.
        fetcher: gets what lies at addresses.
        gate: holds room for what was fetched, as for what was sent.
    """

    def __init__(self, runtime: Runtime, fetcher: Fetcher, gate: Gate) -> None:
        self._runtime, self._fetcher, self._gate = runtime, fetcher, gate

    @asynccontextmanager
    async def items(self, inputs: Sequence[AnyInput]) -> AsyncIterator[list[Item]]:
        """Items in the inputs' order; their videos lie in files until the context ends.

        Raises:
            RequestError: 400, a medium cannot be had.
            UmrError: an item is empty.
        """
        with ExitStack() as held:
            fetched = await self._fetch([source for one in inputs for source in _images(one) if not source.startswith("data:")], held)
            if not any(isinstance(one, ItemInput) and one.video for one in inputs):
                yield await self._runtime.aside(partial(_items, inputs, fetched, Path()))  # nothing is written
                return
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="umr-"))
            try:
                yield await self._runtime.aside(partial(_items, inputs, fetched, Path(folder)))
            except UmrError as error:
                if folder not in str(error):
                    raise
                raise RequestError(400, str(error).replace(f"{folder}/", "video "), "invalid_input") from error

    async def _fetch(self, urls: list[str], held: ExitStack) -> dict[str, bytes]:
        fetched: dict[str, bytes] = {}

        async def fetch(url: str) -> None:
            data = await self._fetcher.fetch(url)
            self._gate.take(len(data))
            held.callback(self._gate.give_back, len(data))
            fetched[url] = data

        try:
            async with asyncio.TaskGroup() as group:
                for url in dict.fromkeys(urls):
                    group.create_task(fetch(url))
        except* RequestError as errors:
            raise errors.exceptions[0] from None
        return fetched


def _items(inputs: Sequence[AnyInput], fetched: Mapping[str, bytes], folder: Path) -> list[Item]:
    return [Item(tuple(_parts(one, fetched, folder / f"{number}"))) for number, one in enumerate(inputs)]


def _parts(one: AnyInput, fetched: Mapping[str, bytes], file: Path) -> list[Part]:
    if isinstance(one, str):
        return [Text(one)] if one else []
    if not isinstance(one, ItemInput):
        shown = [part for part in one.content if not isinstance(part, TextPart) or part.text]
        return [Text(part.text) if isinstance(part, TextPart) else _image(part.image_url.url, fetched) for part in shown]
    parts: list[Part] = [_image(source, fetched) for source in _images(one)]
    if one.video:
        file.write_bytes(decode(one.video))
        parts.append(Video(file))
    return [*parts, Text(one.text)] if one.text else parts


def _images(one: AnyInput) -> list[str]:
    if isinstance(one, str):
        return []
    if not isinstance(one, ItemInput):
        return [part.image_url.url for part in one.content if not isinstance(part, TextPart)]
    return [one.image] if isinstance(one.image, str) else list(one.image or [])


def _image(source: str, fetched: Mapping[str, bytes]) -> Image:
    return Image(fetched[source] if source in fetched else decode(source))


def decode(uri: str) -> bytes:
    """What a data URI holds. Raises `RequestError` 400 when it is not well-formed."""
    head = _DATA_URI.match(uri)
    if head is None:
        raise RequestError(400, "a medium must be a data URI such as data:image/png;base64,...", "invalid_data_uri")
    try:
        return base64.b64decode(uri[head.end() :].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise RequestError(400, "a data URI holds damaged base64", "invalid_data_uri") from error
