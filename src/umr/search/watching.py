"""Indexing again whenever files change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

QUIET_MS = 1000
"""A change is looked at once nothing more has changed for so long ..."""
LONGEST_MS = 10_000
"""... or at the latest after this."""


def watch(source: Path, leave_out: Path, again: Callable[[], None], *, hidden: bool = False, stop: threading.Event | None = None) -> None:
    """Call `again` once, and then after every change below a folder, or of a manifest's folder, until `stop` is set.

    Watching begins before the first call, so that no change falls between.

    Args:
        source: the folder or manifest.
        leave_out: a folder whose changes do not count, such as the collection's own.
        again: what to do; it finds out by itself what has changed.
        hidden: whether hidden files count.
        stop: ends it; without, an interruption does.
    """
    from watchfiles import Change
    from watchfiles import watch as changes_of

    root = (source if source.is_dir() else source.parent).resolve()
    own = leave_out.resolve()

    def counts(change: Change, name: str) -> bool:
        path = Path(name)
        if path.is_relative_to(own):
            return False
        inside = path.relative_to(root).parts if path.is_relative_to(root) else path.parts
        return hidden or not any(part.startswith(".") for part in inside)

    begun = False
    for changes in changes_of(
        root,
        watch_filter=counts,
        debounce=LONGEST_MS,
        step=QUIET_MS,
        rust_timeout=500,
        yield_on_timeout=True,
        stop_event=stop or threading.Event(),
        ignore_permission_denied=True,
    ):
        if changes or not begun:
            begun = True
            again()
