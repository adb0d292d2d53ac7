"""Files beside an image that tell about it: `x.txt` with a caption, `x.json` with a caption and fields, for `x.jpg`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from umr.errors import DataError
from umr.search.metadata import encode
from umr.search.readers.texts import decode

LONGEST = 4000
"""Characters; a longer text beside an image is no caption but a text of its own."""
MOST_BYTES = 16 * LONGEST
"""Of a caption file."""
_TEXT_KEYS = ("caption", "text", "description", "title")


def caption_of(data: bytes) -> str:
    """The caption in a `.txt` file.

    Raises:
        DataError: it is no text.
    """
    return " ".join(decode(data).split())


def fields_of(data: bytes) -> tuple[str, dict[str, Any]]:
    """The caption, `""` without one, and the fields of a `.json` file.

    The caption is the first of `caption`, `text`, `description` and `title` that is a text; everything else is a field.
    Objects in objects become fields with dots, `{"camera": {"iso": 100}}` is `camera.iso`; lists become lists of texts.

    Raises:
        DataError: it is no JSON object, or holds what a row cannot keep: numbers of over 64 bits, or text that is no valid Unicode.
    """
    try:
        told = json.loads(decode(data))
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON ({error})") from error
    if not isinstance(told, dict):
        raise DataError(f"holds {'a list' if isinstance(told, list) else 'one value'}, not a JSON object with fields")
    key = next((key for key in _TEXT_KEYS if isinstance(told.get(key), str)), None)
    caption = " ".join(told.pop(key).split()) if key else ""
    fields = flat(told)
    encode({**fields, **({key: caption} if key else {})}, "the JSON object")
    return caption, fields


def flat(told: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields in the form that a row's metadata takes: texts, numbers, true/false, and lists of texts; null is left out."""
    found: dict[str, Any] = {}
    for key, value in told.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            found[name] = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False, default=str) for one in value]
        elif isinstance(value, str | bool | int | float):
            found[name] = value
        elif value is not None:
            found[name] = str(value)
    return {name: value for name, value in found.items() if name}
