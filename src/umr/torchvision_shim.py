"""Lets a torchvision built for CUDA be imported beside a torch built without it.

A package index may hold the CPU build of torch and only the CUDA build of torchvision. That torchvision's compiled part
then does not load, and `import torchvision` fails with "operator torchvision::nms does not exist", although transformers
needs nothing but its pure Python transforms. Declaring the missing operators before that first import is enough.

`install` puts a finder in front of the import system that does so when, and only when, somebody imports torchvision:
no import of torch is brought forward, and every process that imports `umr` is covered. Where torch and torchvision were
built alike it does nothing: declaring an operator that the compiled part then defines would be an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_OPERATORS = ("nms", "qnms")
"""What torchvision 0.28 looks up while it is imported; the others only when they are called."""

_libraries: list[Any] = []  # a declaration lives as long as its torch.library.Library


class _Finder:
    """Finds torchvision where the path finder does, and has it executed by our loader. Leaves everything else alone."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        _declare_operators(Path(self.path).with_name("version.py"))
        super().exec_module(module)


def install() -> None:
    """Cover the first import of torchvision in this process. Calling it again does nothing, nor does calling it too late."""
    if "torchvision" not in sys.modules and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def _declare_operators(version_file: Path) -> None:
    import torch

    if torch.version.cuda is not None or not _built_for_cuda(version_file):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:  # declared by somebody else already
            continue
    _libraries.append(library)


def _built_for_cuda(version_file: Path) -> bool:
    """Whether torchvision's own version, such as `0.28.0+cu130`, names a CUDA release."""
    try:
        return re.search(r"__version__ = ['\"][^'\"]*\+cu\d", version_file.read_text("utf-8")) is not None
    except OSError:
        return False
