"""API keys, compared in a time that does not depend on what is compared."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from umr.serving.errors import RequestError


class Keys:
    """The keys that open a server.

    Args:
        keys: in plain text; only their hashes are kept. None: everyone may enter.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: bytes | None) -> None:
        """Raise `RequestError` 401 unless the header `Authorization` holds one of the keys as `Bearer KEY`."""
        if not self._digests:
            return
        if authorization is None:
            raise RequestError(401, "no API key was given; send it as 'Authorization: Bearer KEY'", "missing_api_key")
        scheme, _, key = authorization.partition(b" ")
        given = _digest(key.strip())
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]  # all of them: no early exit
        if scheme.lower() != b"bearer" or not any(matches):
            raise RequestError(401, "wrong API key", "invalid_api_key")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
