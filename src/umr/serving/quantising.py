"""Vectors in fewer bytes, in the forms that Cohere's API names."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np


def as_base64(vectors_ND: np.ndarray) -> list[str]:
    """Each vector's float32, little-endian bytes, in base64: what the clients of OpenAI and Cohere decode."""
    return [base64.b64encode(row).decode() for row in np.ascontiguousarray(vectors_ND, "<f4")]


def as_type(vectors_ND: np.ndarray, kind: str) -> list[Any]:
    """Vectors in one of Cohere's embedding types.

    Args:
        vectors_ND: float32, (N, D).
        kind: `float`; `base64`; `int8` and `uint8`: each vector scaled so that its largest component becomes 127, which keeps
            cosines but not lengths (`uint8` is `int8` + 128); `ubinary` and `binary`: the signs, eight in a byte, the first the
            highest bit (`binary` is `ubinary` - 128), zeros filling the last byte.
    """
    if kind == "float":
        return list(vectors_ND.tolist())
    if kind == "base64":
        return as_base64(vectors_ND)
    if kind in ("int8", "uint8"):
        largest_N1 = np.maximum(np.abs(vectors_ND).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        scaled_ND = np.rint(vectors_ND / largest_N1 * 127).astype(np.int16)
        return list((scaled_ND + (128 if kind == "uint8" else 0)).tolist())
    bits_NB = np.packbits(vectors_ND > 0, axis=1).astype(np.int16)
    return list((bits_NB - (128 if kind == "binary" else 0)).tolist())
