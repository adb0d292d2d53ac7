"""Bookkeeping that keeps splits apart and captions true of one picture only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, TypeAlias

Key: TypeAlias = tuple[Any, ...]
"""What a picture shows, as a sorted tuple of parts; a key whose parts are among another's is true of that one too."""


class Registry:
    """All keys given out so far.

    A key is given out once, whichever split or dataset asks, so no two splits share one. A *closed* key is one that a
    caption lists in full: no later key may contain it, and it may not be part of an earlier one, else the caption would
    be true of both.
    """

    def __init__(self) -> None:
        self._taken: set[Key] = set()
        self._closed: set[Key] = set()
        self._covered: set[Key] = set()

    def claim(self, family: Sequence[Key], closed: bool = False) -> bool:
        """Take all keys of `family`, or none.

        Args:
            family: keys that belong together; must differ from each other.
            closed: whether captions will list these keys in full. The members of a closed family must not contain each
                other (the caller's duty: keys of one length never do).

        Returns:
            Whether they were free and are now taken.
        """
        if len(set(family)) != len(family):
            return False
        for key in family:
            if key in self._taken or (closed and key in self._covered):
                return False
            if any(part in self._closed for part in _proper_parts(key)):
                return False
        self._taken.update(family)
        if closed:
            self._closed.update(family)
            for key in family:
                self._covered.update(_proper_parts(key))
        return True


def _proper_parts(key: Key) -> Iterable[Key]:
    for size in range(1, len(key)):
        yield from combinations(key, size)
