"""Ids as 64-bit numbers, so that millions of them fit in one array.

The ids of M-BEIR, `"<dataset>:<number>"`, are packed without loss: dataset in bits 40 to 62, number in bits 0 to 39. Any
other string is hashed, with bit 63 set; whoever builds an index checks that no two hashes meet.
"""

from __future__ import annotations

import hashlib
import re

HASHED = 1 << 63
_NUMBER_BITS = 40
_CANONICAL = re.compile(r"(0|[1-9][0-9]{0,6}):(0|[1-9][0-9]{0,12})")


def pack(id: str) -> int:
    """The 64-bit key of an id. Only ids written canonically (no leading zeros, no sign) are packed; others are hashed."""
    match = _CANONICAL.fullmatch(id)
    if match:
        dataset, number = int(match[1]), int(match[2])
        if dataset < 1 << (63 - _NUMBER_BITS) and number < 1 << _NUMBER_BITS:
            return dataset << _NUMBER_BITS | number
    digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") | HASHED


def unpack(key: int) -> str | None:
    """The id behind a key; `None` if the key is a hash."""
    if key & HASHED:
        return None
    return f"{key >> _NUMBER_BITS}:{key & ((1 << _NUMBER_BITS) - 1)}"
