"""What a stage leaves beside its product: `stage.started.json` when it begins, `stage.json` when it is done.

`stage.json` is written last, so its existence means that the product is whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from umr.files import write_text

FORMAT = 1
DONE, BEGUN = "stage.json", "stage.started.json"
PACKAGES = ("torch", "transformers", "sentence-transformers", "peft", "accelerate", "numpy", "pyarrow", "pillow")


@dataclass(frozen=True)
class Begun:
    """A run of a stage that has begun.

    Attributes:
        config_hash: of `umr.pipelines.fingerprints.of_config`.
        inputs: fingerprint of each input, by the stage's name or the path.
        started: date of the first start.
        starts: how often it was started, interruptions included.
    """

    config_hash: str
    inputs: dict[str, str]
    started: str
    starts: int


@dataclass(frozen=True)
class Manifest:
    """A finished stage.

    Attributes:
        name, kind: of the stage.
        config: everything that decides what it does, with references to other stages by name.
        config_hash, inputs: as in `Begun`.
        product: fingerprint of what it made; equal products let the stages that use it stand.
        metrics: numbers worth comparing, by kind: averages, final loss, counts.
        versions: of the packages it ran with.
        seconds: of the last start.
        started, finished: dates, UTC.
        starts: as in `Begun`.
    """

    name: str
    kind: str
    config: dict[str, Any]
    config_hash: str
    inputs: dict[str, str]
    product: str
    metrics: dict[str, Any]
    versions: dict[str, str]
    seconds: float
    started: str
    finished: str
    starts: int

    def write(self, folder: Path) -> None:
        """Mark the stage in `folder` as finished."""
        write_text(folder / DONE, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")
        (folder / BEGUN).unlink(missing_ok=True)


@dataclass(frozen=True)
class Record:
    """What is on disk of one stage: a finished run, or one that was begun, or neither."""

    finished: Manifest | None = None
    begun: Begun | None = None
    product_there: bool = False


def read_record(folder: Path, product: str) -> Record:
    """Look into a stage's folder.

    Args:
        folder: of the stage; need not exist.
        product: name of what the stage makes, inside it.
    """
    done, begun = _read(folder / DONE), _read(folder / BEGUN)
    if done is not None and done.pop("format", None) == FORMAT:
        return Record(Manifest(**done), None, (folder / product).exists())
    return Record(None, Begun(**begun) if begun is not None else None)


def write_begun(folder: Path, begun: Begun) -> None:
    """Mark the stage in `folder` as begun."""
    write_text(folder / BEGUN, json.dumps(asdict(begun), indent=1) + "\n")


def versions() -> dict[str, str]:
    """Of this package and of those that results depend on."""
    import umr

    return {"umr": umr.__version__, **{name: version(name) for name in PACKAGES}}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # written atomically, so a broken one is a damaged disk: as good as none
        return None
    return content if isinstance(content, dict) else None
