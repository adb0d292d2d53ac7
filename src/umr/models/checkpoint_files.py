"""Looking into the weight files of a folder without loading them, and refusing the kinds that can run code."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from umr.errors import ModelError

_TEMPERATURE = re.compile(r"(^|\.)sim\.(modules_to_save\.[^.]+\.|original_module\.)?temp$")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def must_be_new(out: Path) -> None:
    """Raise `ModelError` when something is at `out` already."""
    if out.exists() or out.is_symlink():
        raise ModelError(f"{out}: exists already; choose a new folder, or remove it")


def weight_files(folder: Path, pattern: str = "*.safetensors") -> list[Path]:
    """The safetensors files of a folder. Raises `ModelError` when there are none, or only pickles."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    found = sorted(folder.glob(pattern))
    if found:
        return found
    if pickles := sorted(path.name for kind in _PICKLES for path in folder.glob(kind)):
        raise ModelError(
            f"{folder}: its weights are pickled ({pickles[0]}), which can run code when read; "
            "convert them to safetensors where they come from (save_pretrained does) and try again"
        )
    raise ModelError(f"{folder}: holds no weights ({pattern})")


def tensor_names(files: list[Path]) -> dict[str, Path]:
    """Name of every tensor -> the file that holds it. Raises `ModelError` for a damaged file."""
    names: dict[str, Path] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:
                names |= dict.fromkeys(tensors.keys(), path)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: damaged ({str(error).splitlines()[0]}); download it again") from error
    return names


def is_temperature(name: str) -> bool:
    """Whether a tensor is the original code's learned temperature (`sim.temp`), wherever peft has put it."""
    return _TEMPERATURE.search(name) is not None


def read_temperature(names: dict[str, Path]) -> float | None:
    """The learned temperature among the tensors; None when there is none.

    Raises:
        ModelError: it is not one positive number.
    """
    # peft keeps what it has trained beside the start value, which it calls the original.
    found = sorted((name for name in names if is_temperature(name)), key=lambda name: "original_module" in name)
    if not found:
        return None
    with safe_open(names[found[0]], framework="pt") as tensors:
        tensor = tensors.get_tensor(found[0])
    value = float(tensor.float().reshape(-1)[0]) if tensor.numel() else 0.0
    if tensor.numel() != 1 or not (value > 0 and math.isfinite(value)):
        raise ModelError(f"{names[found[0]]}: {found[0]} must be one positive number, the temperature")
    return round(value, 6)


def stored_dtype(config: Any) -> torch.dtype:
    """The number type that a checkpoint's weights are kept in."""
    found = config.dtype or config.get_text_config().dtype
    return found if isinstance(found, torch.dtype) else torch.float32
