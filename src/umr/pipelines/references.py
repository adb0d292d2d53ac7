"""`${name}` in YAML: variables, and stages whose product is meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from umr.errors import RecipeError

REFERENCE = re.compile(r"\$\{([A-Za-z0-9_-]+)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"  # stand for `${` and `}` while YAML reads: inside {...} it would take the braces for its own
_HELD = re.compile(f"{_OPEN}([A-Za-z0-9_-]+){_CLOSE}")


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML mapping in which `${name}` may stand anywhere without quotes.

    Args:
        path: the file.
        what: what it is, for errors, such as `"pipeline"`.

    Raises:
        RecipeError: the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}); give the path of a {what} in YAML") from error
    tree = read_value(text, str(path))
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a {what} is a mapping of keys and values")
    return tree


def read_value(text: str, where: str) -> Any:
    """One YAML value, with `${name}` as in `read_yaml`."""
    try:
        return _released(yaml.safe_load(REFERENCE.sub(rf"{_OPEN}\1{_CLOSE}", text)))
    except yaml.YAMLError as error:
        message = _HELD.sub(r"${\1}", " ".join(str(error).split()))
        raise RecipeError(f"{where}: not valid YAML ({message})") from error


def references(value: Any) -> tuple[str, ...]:
    """Names referred to anywhere inside, each once, sorted."""
    if isinstance(value, str):
        return tuple(sorted(set(REFERENCE.findall(value))))
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return tuple(sorted({name for child in children for name in references(child)}))


def fill(value: Any, values: Mapping[str, Any]) -> Any:
    """Put values in place of references; names that `values` does not have stay.

    A text that is one reference and nothing else becomes the value itself, with its type.
    """
    if isinstance(value, str):
        whole = REFERENCE.fullmatch(value)
        if whole and whole[1] in values:
            return values[whole[1]]
        return REFERENCE.sub(lambda match: str(values.get(match[1], match[0])), value)
    if isinstance(value, dict):
        return {fill(key, values): fill(child, values) for key, child in value.items()}
    return [fill(child, values) for child in value] if isinstance(value, list | tuple) else value


def _released(value: Any) -> Any:
    if isinstance(value, str):
        return _HELD.sub(r"${\1}", value)
    if isinstance(value, dict):
        return {_released(key): _released(child) for key, child in value.items()}
    return [_released(child) for child in value] if isinstance(value, list) else value
