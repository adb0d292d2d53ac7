"""Processes that end with the one that started them, even where that one is killed and can end nobody."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """In a child of `multiprocessing`: watch the process that started it, and end without further ado when it is gone.

    A data worker of torch would else stay for good with the batch that nobody fetches any more, and a stage of a killed study would go on
    beside those of the study that is started next.
    """
    threading.Thread(target=_wait, name="end-with-parent", daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
