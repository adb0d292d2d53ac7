"""CC-Neg (Singh et al., 2024): pictures of CC3M with a caption and its negation; the last 40,000 are the test set.

    <root>/ccneg_preprocessed.pt
    <root>/<image path after /workspace/datasets/cc3m/>

The first is a torch file: {"annotations": [{"json": {"caption"}, "sop_data": {"negative-prompt"}}], "image_paths": []}.

Commas of the negations are removed, as its users do: they come from the way in which the negations were generated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umr.errors import DataError
from umr.evaluation.suites.folder import Folder, get, inside, objects, texts_of
from umr.evaluation.suites.pairs import Pair, pair_accuracy
from umr.evaluation.suites.task import Suite

TEST = 40_000
PREFIX = "/workspace/datasets/cc3m/"
"""What image paths begin with in the published file."""


def read(folder: Folder) -> Suite:
    """Read the folder. Raises `DataError`."""
    path = folder.file("ccneg_preprocessed.pt")
    content = _load(path)
    paths = texts_of(get(content, "image_paths", list, str(path)), f"{path}: image_paths")
    annotations = list(objects(get(content, "annotations", list, str(path)), f"{path}: annotations"))
    if len(paths) != len(annotations):
        raise DataError(f"{path}: {len(paths):,} image paths do not fit {len(annotations):,} annotations; fetch it again")
    pairs = [_pair(folder.root, name, *one) for name, one in zip(paths[-TEST:], annotations[-TEST:], strict=True)]
    task = pair_accuracy("image -> caption", "", pairs)
    return Suite(folder.suite, folder.root, folder.source, (path,), (task,), "accuracy")


def _pair(root: Path, name: str, where: str, record: dict[str, Any]) -> Pair:
    right = get(get(record, "json", dict, where), "caption", str, where)
    wrong = get(get(record, "sop_data", dict, where), "negative-prompt", str, where).replace(",", "")
    return inside(root, name.removeprefix(PREFIX), where), right, wrong


def _load(path: Path) -> dict[str, Any]:
    import torch

    try:
        # Tensors, containers, strings and numbers, and nothing that could run.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader lets many kinds through on a damaged file
        raise DataError(f"{path}: cannot be read as plain data ({' '.join(str(error).split())[:160]})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold a dictionary, not {type(content).__name__}")
    return content
