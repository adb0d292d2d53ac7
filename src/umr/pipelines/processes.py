"""One pipeline, several processes: one run at a time in a folder, and under torchrun one process that decides for all."""

from __future__ import annotations

import fcntl
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from umr.errors import RecipeError

_FAILED = -1
_LONGEST_STAGE = timedelta(days=60)
"""How long the other processes wait for a stage that runs in one: far beyond torch.distributed's minutes."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder against a second run of the same pipeline.

    Raises:
        RecipeError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecipeError(f"{folder}: another process is running this; wait for it, or choose another folder with --out") from error
        yield


def give_back_memory() -> None:
    """Let go of what training took on a device: workers of the next stage use all devices, also those of processes that wait."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class Team:
    """The processes that torchrun has started, or this one alone."""

    def __init__(self) -> None:
        self._group: Any = None
        self.rank = 0
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            import torch
            import torch.distributed as dist
            from accelerate import PartialState

            PartialState(cpu=not torch.cuda.is_available())
            # A group of its own on the CPU: waiting in it may take as long as mining takes.
            self._group = dist.new_group(backend="gloo", timeout=_LONGEST_STAGE)
            self.rank = dist.get_rank()

    def on_first(self, action: Callable[[], int]) -> int:
        """Do something in the first process, and tell all of them the number (not negative) that it returns.

        When it fails, the others end with `SystemExit` instead of waiting for it for ever.
        """
        if self._group is None:
            return action()
        import torch
        import torch.distributed as dist

        number, failure = _FAILED, None
        if self.rank == 0:
            try:
                number = action()
            except BaseException as error:
                failure = error
        told = torch.tensor([number])
        dist.broadcast(told, 0, group=self._group)
        if failure is not None:
            raise failure
        if int(told) == _FAILED:
            raise SystemExit(1)
        return int(told)
